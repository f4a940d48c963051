"""Solvers for the challenge types (RFC 8555, 8; RFC 8737)."""

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
"""Called with the token and the thumbprint of an http-01 challenge before the server validates it."""


class Solver(Protocol):
    """Solves challenges of one type."""

    @property
    def type(self) -> str:
        """The challenge type as in RFC 8555."""
        ...

    def publish(self, identifier: str, token: str, thumbprint: str) -> None:
        """Publish the response before the server validates it."""
        ...


@dataclass(frozen=True, slots=True)
class ByHTTP:
    """Solves http-01 with a web server."""

    add: Publish
    type: ClassVar[str] = HTTP01

    def publish(self, _identifier: str, token: str, thumbprint: str) -> None:
        """Serve the key authorization for the token."""
        self.add(token, thumbprint)


@dataclass(frozen=True, slots=True)
class ByDNS:
    """Solves dns-01 with a TXT record, which replaces an earlier one."""

    zone: dns.Zone
    type: ClassVar[str] = DNS01

    def publish(self, identifier: str, token: str, thumbprint: str) -> None:
        """Set the record."""
        digest = b64url(hashlib.sha256(f"{token}.{thumbprint}".encode()).digest())
        self.zone.set(f"_acme-challenge.{identifier}", dns.Records("TXT", digest))


@dataclass(frozen=True, slots=True)
class ByTLS:
    """Solves tls-alpn-01 with the certificate of a TLS server."""

    answerer: tlsalpn01.Answerer
    type: ClassVar[str] = TLSALPN01

    def publish(self, identifier: str, token: str, thumbprint: str) -> None:
        """Serve the certificate for the name."""
        self.answerer.add(identifier, f"{token}.{thumbprint}")
