"""The certificate and the key of an imported CA in PEM, which any tenant may write into a Secret."""

from __future__ import annotations

from datetime import UTC, datetime

from fuzz.target import Target
from kms.pki.ca import InvalidAuthority, check_imported

NOW = datetime(2026, 11, 25, tzinfo=UTC)
BETWEEN = b"\n=====\n"
"""Separates the two in an input."""


def read(data: bytes) -> None:
    """Parse the certificate, then the key."""
    certificate, _, key = data.partition(BETWEEN)
    check_imported(certificate, key, now=NOW)


TARGET = Target(read, (InvalidAuthority,))
