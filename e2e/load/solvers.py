"""How a client proves that it controls a name: one way for each type of challenge (RFC 8555, 8; RFC 8737)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from e2e.load.keys import b64url
from e2e.support import dns, tlsalpn01

HTTP01, DNS01, TLSALPN01 = "http-01", "dns-01", "tls-alpn-01"
CHALLENGES = (HTTP01, DNS01, TLSALPN01)

Publish = Callable[[str, str], None]
"""Told token and thumbprint of an HTTP-01 challenge before the server is told to look."""


class Solver(Protocol):
    """Solves challenges of one type."""

    @property
    def type(self) -> str:
        """As RFC 8555 calls it."""
        ...

    def publish(self, identifier: str, token: str, thumbprint: str) -> None:
        """Show the proof, before the server is told to look."""
        ...


@dataclass(frozen=True, slots=True)
class ByHTTP:
    """A file on a web server."""

    add: Publish
    type: ClassVar[str] = HTTP01

    def publish(self, _identifier: str, token: str, thumbprint: str) -> None:
        """Let the web server answer for the token."""
        self.add(token, thumbprint)


@dataclass(frozen=True, slots=True)
class ByDNS:
    """A TXT record, which takes the place of an earlier one."""

    zone: dns.Zone
    type: ClassVar[str] = DNS01

    def publish(self, identifier: str, token: str, thumbprint: str) -> None:
        """Set the record."""
        digest = b64url(hashlib.sha256(f"{token}.{thumbprint}".encode()).digest())
        self.zone.set(f"_acme-challenge.{identifier}", dns.Records("TXT", digest))


@dataclass(frozen=True, slots=True)
class ByTLS:
    """A certificate on a TLS server."""

    answerer: tlsalpn01.Answerer
    type: ClassVar[str] = TLSALPN01

    def publish(self, identifier: str, token: str, thumbprint: str) -> None:
        """Let the TLS server answer for the name."""
        self.answerer.add(identifier, f"{token}.{thumbprint}")
