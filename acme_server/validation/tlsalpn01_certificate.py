"""The certificate that a tls-alpn-01 responder presents (RFC 8737, 3). Pure."""

from __future__ import annotations

import hmac
import ipaddress
import warnings

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from kms.pki.parsing import PARSER_ERRORS
from kms.resources.orders import Identifier

MAXIMUM_CERTIFICATE = 16 * 1024
"""Octets; an ordinary one has about 500."""

ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OBSOLETE = ObjectIdentifier("1.3.6.1.5.5.7.1.30.1")
_OCTET_STRING = b"\x04\x20"
"""Tag and length of a DER OCTET STRING with 32 octets."""


class WrongCertificate(ValueError):
    """A certificate that does not prove control. The message ends a sentence about it, and quotes nothing from it."""


def check(der: bytes, identifier: Identifier, digest: bytes) -> None:
    """Raise WrongCertificate unless the certificate proves control of the identifier.

    `digest` is the SHA-256 digest of the key authorization. Issuer and validity of the certificate do not matter.
    """
    extensions = _extensions(der)
    _check_names(extensions, identifier)
    try:
        found = extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except x509.ExtensionNotFound:
        obsolete = any(each.oid == _OBSOLETE for each in extensions)
        why = "has the acmeIdentifier extension of an obsolete draft" if obsolete else "has no acmeIdentifier extension"
        raise WrongCertificate(f"{why} (RFC 8737: 1.3.6.1.5.5.7.1.31)") from None
    if not found.critical:
        raise WrongCertificate("has an acmeIdentifier extension that is not critical")
    if not hmac.compare_digest(found.value.public_bytes(), _OCTET_STRING + digest):
        raise WrongCertificate("has an acmeIdentifier that is not the digest of this challenge's key authorization")


def _extensions(der: bytes) -> x509.Extensions:
    if len(der) > MAXIMUM_CERTIFICATE:
        raise WrongCertificate(f"is longer than {MAXIMUM_CERTIFICATE} bytes")
    try:
        with warnings.catch_warnings():  # oddities do not matter here
            warnings.simplefilter("ignore")
            return x509.load_der_x509_certificate(der).extensions
    except PARSER_ERRORS:
        raise WrongCertificate("is malformed") from None


def _check_names(extensions: x509.Extensions, identifier: Identifier) -> None:
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        raise WrongCertificate("has no subject alternative name") from None
    if len(names) != 1:
        raise WrongCertificate("does not have exactly one subject alternative name")
    if not _matches(names[0], identifier):
        kind = "dNSName" if identifier.type == "dns" else "iPAddress"
        raise WrongCertificate(f"does not have the identifier as its subject alternative name ({kind})")


def _matches(name: x509.GeneralName, identifier: Identifier) -> bool:
    match name:
        case x509.DNSName():
            return identifier.type == "dns" and name.value.lower() == identifier.value
        case x509.IPAddress():
            return identifier.type == "ip" and name.value == ipaddress.ip_address(identifier.value)
        case _:
            return False
