"""Free ports of the loopback address."""

from __future__ import annotations

import secrets
import socket

LOOPBACK = "127.0.0.1"
_BELOW_EPHEMERAL = range(15_000, 32_000)
"""Outgoing connections get their ports from above 32768: one of them must not take what was free a moment ago."""
_ATTEMPTS = 100


def free_port() -> int:
    """A port that was free for TCP and UDP a moment ago. Somebody may take it first: callers try again with another.

    Raises:
        OSError: nothing is free.
    """
    for _ in range(_ATTEMPTS):
        port = secrets.choice(_BELOW_EPHEMERAL)  # tests that run side by side may share a seed of `random`
        if all(_is_free(port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            return port
    raise OSError("no port of the loopback address is free")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
