"""Free ports of the loopback address."""

from __future__ import annotations

import secrets
import socket

LOOPBACK = "127.0.0.1"
_BELOW_EPHEMERAL = range(15_000, 32_000)
"""Ports below 32768, so that no outgoing connection takes a free port."""
_ATTEMPTS = 100
_given: set[int] = set()
"""What this process has been told. A program that gets several ports opens some of them late."""


def free_port() -> int:
    """Find a port that is free for TCP and UDP, another one each time.

    Another process may take it first; callers retry.

    Raises:
        OSError: no port is free.
    """
    for _ in range(_ATTEMPTS):
        port = secrets.choice(_BELOW_EPHEMERAL)  # parallel tests may share the seed of `random`
        if port not in _given and all(_is_free(port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            _given.add(port)
            return port
    raise OSError("no port of the loopback address is free")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
