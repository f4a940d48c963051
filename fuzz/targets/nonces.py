"""Nonces in requests (RFC 8555, 6.5)."""

from __future__ import annotations

from datetime import UTC, datetime

from acme_server.nonces import Nonces
from acme_server.problems import Refused
from fuzz.target import Target

NOW = datetime(2026, 11, 25, tzinfo=UTC)
NONCES = Nonces(clock=lambda: NOW, entropy=bytes)
NONCES.use(b"a secret of the replicas")


def read(data: bytes) -> None:
    """Parse a nonce and redeem it."""
    NONCES.redeem(NONCES.read(data.decode("utf-8", "replace")))


TARGET = Target(read, (Refused,), longest=4096)
