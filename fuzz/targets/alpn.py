"""The certificate that a server presents for TLS-ALPN-01 (RFC 8737, 3)."""

from __future__ import annotations

from acme_server.validation.tlsalpn01_certificate import MAXIMUM_CERTIFICATE, WrongCertificate, check
from fuzz.target import Target
from kms.resources.orders import Identifier

NAME = "www.example.com"
VALUE = b"\x04\x20" + bytes(range(32))
"""The acmeIdentifier: a DER OCTET STRING with the digest."""


def read(data: bytes) -> None:
    """Check the certificate for a name. The message of a refusal must fit on one line."""
    try:
        check(data, Identifier(type="dns", value=NAME), VALUE[2:])
    except WrongCertificate as error:
        if not str(error).isprintable():
            raise AssertionError("the message has more than one line") from error


TARGET = Target(read, (), longest=MAXIMUM_CERTIFICATE + 1)
