"""Certificate signing requests (PKCS #10, RFC 2986): parsed and checked once, then a value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm

from kms.pki.keys import PublicKey, key_algorithm, weakness
from kms.pki.names import InvalidName, Name, common_name_of, dns_name, ip_address
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.subjects import COMMON_NAME, LIMITS, attributes_of, check_value

MAXIMUM_REQUEST: Final = 16 * 1024
MAXIMUM_EXTENSIONS: Final = 32
MAXIMUM_SUBJECT: Final = 32
"""Attributes of a subject; policies compare each of them with patterns."""

SIGNATURE_ALGORITHMS: Mapping[x509.ObjectIdentifier, str] = MappingProxyType(
    {
        Algorithm.ECDSA_WITH_SHA256: "ECDSA-SHA256",
        Algorithm.ECDSA_WITH_SHA384: "ECDSA-SHA384",
        Algorithm.ECDSA_WITH_SHA512: "ECDSA-SHA512",
        Algorithm.RSA_WITH_SHA256: "RSA-SHA256",
        Algorithm.RSA_WITH_SHA384: "RSA-SHA384",
        Algorithm.RSA_WITH_SHA512: "RSA-SHA512",
        Algorithm.ED25519: "Ed25519",
    }
)
"""The signatures that a request may carry, by the names that policies use: no MD5, no SHA-1."""

_WORDS: Mapping[type[x509.GeneralName], str] = MappingProxyType(
    {
        x509.RFC822Name: "an email address",
        x509.UniformResourceIdentifier: "a URI",
        x509.DirectoryName: "a directory name",
        x509.RegisteredID: "a registered ID",
        x509.OtherName: "an otherName",
    }
)


class InvalidRequest(ValueError):
    """A certificate request that cannot be used under any policy; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose signature has been checked.

    `digest` is SHA-256 of `der` in hexadecimal. `names` are those of the subjectAltName and the common name, where that
    is a name, together. `subject` has every attribute but the common name; attributes that
    manifests do not name have their OID or short name as key.
    """

    der: bytes
    digest: str
    public_key: PublicKey
    key_algorithm: str
    signature_algorithm: str
    names: frozenset[Name]
    common_name: str | None
    subject: Mapping[str, tuple[str, ...]]


def parse_request(der: bytes) -> CertificateRequest:
    """Read and check a request: size, form, version 0, a sound key, its own signature, and only names that we certify.

    Names are taken from the extensions. Extensions that request a CA are refused, and others are ignored. The policy is
    not applied here.

    Raises InvalidRequest, and for no input another exception.
    """
    if len(der) > MAXIMUM_REQUEST:
        raise InvalidRequest(f"The certificate request is larger than {MAXIMUM_REQUEST} bytes.")
    try:
        return _read(der)
    except InvalidRequest:
        raise
    except PARSER_ERRORS:
        raise InvalidRequest("The certificate request is not well-formed DER of PKCS #10.") from None


def _read(der: bytes) -> CertificateRequest:
    parsed = x509.load_der_x509_csr(der)
    signature_algorithm = SIGNATURE_ALGORITHMS.get(parsed.signature_algorithm_oid)
    if signature_algorithm is None:
        raise InvalidRequest(
            f"The certificate request is signed with an algorithm that is not accepted; use one of"
            f" {', '.join(sorted(SIGNATURE_ALGORITHMS.values()))}."
        )
    public_key = _public_key(parsed)
    algorithm = key_algorithm(public_key)
    if algorithm is None or not isinstance(public_key, PublicKey):
        raise InvalidRequest("The key of the certificate request is not RSA, ECDSA on a NIST curve or Ed25519.")
    # Cheap checks first: the signature costs more than all the rest.
    if len(parsed.subject) > MAXIMUM_SUBJECT:
        raise InvalidRequest(f"The subject of the certificate request has more than {MAXIMUM_SUBJECT} attributes.")
    subject = attributes_of(parsed.subject)
    _check_values(subject)
    common_name, named = _common_name(subject)
    names = frozenset((*_alternative_names(parsed.extensions), *named))
    if not names:
        raise InvalidRequest("The certificate request has no DNS name and no IP address, in subjectAltName or subject.")
    # Before the signature: an attacker could make us verify with an oversized modulus or exponent.
    if reason := weakness(public_key):
        raise InvalidRequest(f"The key of the certificate request must not be used: {reason}.")
    if not parsed.is_signature_valid:
        raise InvalidRequest("The signature of the certificate request does not fit its key.")
    return CertificateRequest(
        der=der,
        digest=hashlib.sha256(der).hexdigest(),
        public_key=public_key,
        key_algorithm=algorithm,
        signature_algorithm=signature_algorithm,
        names=names,
        common_name=common_name,
        subject=MappingProxyType({key: values for key, values in subject.items() if key != COMMON_NAME}),
    )


def _public_key(parsed: x509.CertificateSigningRequest) -> object:
    try:
        return parsed.public_key()
    except PARSER_ERRORS:
        raise InvalidRequest(
            "The key of the certificate request cannot be read, or is of a kind not accepted."
        ) from None


def _check_values(subject: Mapping[str, tuple[str, ...]]) -> None:
    for attribute in subject.keys() & LIMITS.keys():
        for value in subject[attribute]:
            try:
                check_value(attribute, value)
            except ValueError as error:
                raise InvalidRequest(f"The subject of the certificate request cannot be used: {error}.") from None


def _common_name(subject: Mapping[str, tuple[str, ...]]) -> tuple[str | None, tuple[Name, ...]]:
    """The common name, and the name that it spells, if any. It is then in canonical spelling."""
    values = subject.get(COMMON_NAME, ())
    if len(values) > 1:
        raise InvalidRequest("The certificate request has more than one common name.")
    if not values:
        return None, ()
    name = common_name_of(values[0])
    return (name.value, (name,)) if name else (values[0], ())


def _alternative_names(extensions: x509.Extensions) -> Iterator[Name]:
    if len(extensions) > MAXIMUM_EXTENSIONS:
        raise InvalidRequest(f"The certificate request has more than {MAXIMUM_EXTENSIONS} extensions.")
    for extension in extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as alternatives:
                yield from map(_name, alternatives)
            case x509.BasicConstraints(ca=True):
                raise InvalidRequest("The certificate request asks for a CA certificate (basicConstraints).")
            case x509.KeyUsage(key_cert_sign=True) | x509.KeyUsage(crl_sign=True):
                raise InvalidRequest("The certificate request asks for the key usage of a CA (keyUsage).")
            case _:
                continue  # profile and policy decide what a certificate contains


def _name(general_name: x509.GeneralName) -> Name:
    try:
        match general_name:
            case x509.DNSName(value=value):
                return dns_name(value)
            case x509.IPAddress(value=address):
                return ip_address(str(address))
            case _:
                raise InvalidRequest(
                    f"The certificate request has {_WORDS.get(type(general_name), 'another kind of name')} in"
                    " subjectAltName; only DNS names and IP addresses are certified."
                )
    except InvalidName as error:
        raise InvalidRequest(f"The certificate request has a name that is not accepted: {error}") from None
