"""The payload of a revocation, and the certificate in it (RFC 8555, 7.6)."""

from __future__ import annotations

from acme_server.certificates.revocation import parse_certificate
from acme_server.certificates.revocation_reasons import subscriber_reason
from acme_server.payloads import Revocation, decode
from acme_server.problems import Refused
from fuzz.target import Target


def read(data: bytes) -> None:
    """Parse the payload and the certificate, without looking it up."""
    payload = decode(data, Revocation)
    parse_certificate(payload.der())
    subscriber_reason(payload.reason)


TARGET = Target(read, (Refused,))
