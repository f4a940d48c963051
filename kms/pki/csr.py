"""Certificate signing requests (PKCS #10, RFC 2986): parsed and checked once, then a value.

The structure is read by kms.pki.pkcs10, which takes what OpenSSL and Go take. cryptography reads the key and verifies
the signature, over the bytes as they were received.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm

from kms.pki.der import MalformedDER
from kms.pki.extension_names import extension_name
from kms.pki.keys import PublicKey, key_algorithm, weakness
from kms.pki.names import InvalidName, Name, common_name_of, dns_name, ip_address
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.pkcs10 import MAXIMUM_SUBJECT as MAXIMUM_SUBJECT
from kms.pki.pkcs10 import SignedRequest, read_request
from kms.pki.requested_extensions import (
    BASIC_CONSTRAINTS,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    NO_NAMES,
    SUBJECT_ALTERNATIVE_NAME,
    SUBJECT_KEY_IDENTIFIER,
    USAGES_OF_A_CA,
    AlternativeName,
    alternative_names,
    extended_key_usages,
    is_for_ca,
    key_usages,
)
from kms.pki.subjects import COMMON_NAME, LIMITS, attribute_name
from kms.pki.usages import usage_of_purpose

MAXIMUM_REQUEST: Final = 16 * 1024

SIGNATURE_ALGORITHMS: Mapping[str, str] = MappingProxyType(
    {
        Algorithm.ECDSA_WITH_SHA256.dotted_string: "ECDSA-SHA256",
        Algorithm.ECDSA_WITH_SHA384.dotted_string: "ECDSA-SHA384",
        Algorithm.ECDSA_WITH_SHA512.dotted_string: "ECDSA-SHA512",
        Algorithm.RSA_WITH_SHA256.dotted_string: "RSA-SHA256",
        Algorithm.RSA_WITH_SHA384.dotted_string: "RSA-SHA384",
        Algorithm.RSA_WITH_SHA512.dotted_string: "RSA-SHA512",
        Algorithm.ED25519.dotted_string: "Ed25519",
    }
)
"""The signatures that a request may carry, by the names that policies use: no MD5, no SHA-1."""

_HASHES: Mapping[str, hashes.HashAlgorithm] = MappingProxyType(
    {"SHA256": hashes.SHA256(), "SHA384": hashes.SHA384(), "SHA512": hashes.SHA512()}
)
_KINDS_OF_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "1.2.840.113549.1.1.1": "RSA",
        "1.2.840.113549.1.1.10": "RSASSA-PSS",
        "1.2.840.10040.4.1": "DSA",
        "1.2.840.10045.2.1": "elliptic curve",
        "1.3.101.110": "X25519",
        "1.3.101.112": "Ed25519",
        "1.3.101.113": "Ed448",
    }
)
"""Names of the algorithms of keys, for messages."""


class InvalidRequest(ValueError):
    """A certificate request that cannot be used under any policy; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose signature has been checked.

    `digest` is SHA-256 of `der` in hexadecimal. `names` are those of the subjectAltName and the common name, where that
    is a name, together. `subject` has every attribute but the common name, by the names of manifests, or by the name in
    X.520 or object identifier where manifests have none. `usages` are those that it asks for, by their names in
    manifests or object identifiers; `extensions` are names of all extensions that ask for something else.
    """

    der: bytes
    digest: str
    public_key: PublicKey
    key_algorithm: str
    signature_algorithm: str
    names: frozenset[Name]
    common_name: str | None
    subject: Mapping[str, tuple[str, ...]]
    usages: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()


def parse_request(der: bytes) -> CertificateRequest:
    """Read and check a request: size, form, a sound key, its own signature, and only names that we certify.

    Names are taken from the extensions. Extensions that request a CA are refused, and others select nothing. The policy
    is not applied here.

    Raises InvalidRequest, which says what is wrong, and for no input another exception.
    """
    if len(der) > MAXIMUM_REQUEST:
        raise InvalidRequest(f"The certificate request is larger than {MAXIMUM_REQUEST} bytes.")
    try:
        read = read_request(der)
        return _check(read, der)
    except MalformedDER as error:
        raise InvalidRequest(f"The certificate request is not well-formed DER of PKCS #10: {error}.") from None


def _check(read: SignedRequest, der: bytes) -> CertificateRequest:
    signature_algorithm = SIGNATURE_ALGORITHMS.get(read.signature_algorithm)
    if signature_algorithm is None:
        raise InvalidRequest(
            f"The certificate request is signed with an algorithm that is not accepted ({read.signature_algorithm});"
            f" use one of {', '.join(sorted(SIGNATURE_ALGORITHMS.values()))}."
        )
    public_key, algorithm = _public_key(read)
    # Cheap checks first: the signature costs more than all the rest.
    subject = _subject(read)
    common_name, named = _common_name(subject)
    alternatives = alternative_names(read.extensions.get(SUBJECT_ALTERNATIVE_NAME, NO_NAMES))
    names = frozenset((*map(_name, alternatives), *named))
    if not names:
        raise InvalidRequest("The certificate request has no DNS name and no IP address, in subjectAltName or subject.")
    usages, others = _requested(read.extensions)
    # Before the signature: an attacker could make us verify with an oversized modulus or exponent.
    if reason := weakness(public_key):
        raise InvalidRequest(f"The key of the certificate request must not be used: {reason}.")
    _verify(read, public_key, signature_algorithm, algorithm)
    return CertificateRequest(
        der=der,
        digest=hashlib.sha256(der).hexdigest(),
        public_key=public_key,
        key_algorithm=algorithm,
        signature_algorithm=signature_algorithm,
        names=names,
        common_name=common_name,
        subject=MappingProxyType({key: values for key, values in subject.items() if key != COMMON_NAME}),
        usages=usages,
        extensions=others,
    )


def _public_key(read: SignedRequest) -> tuple[PublicKey, str]:
    """The key, and the name of its algorithm."""
    try:
        public_key = load_der_public_key(read.key)
    except PARSER_ERRORS:
        public_key = None
    algorithm = key_algorithm(public_key)
    if algorithm is None or not isinstance(public_key, PublicKey):
        kind = _KINDS_OF_KEYS.get(read.key_algorithm, read.key_algorithm)
        curve = f", with the curve {read.key_parameters}" if read.key_parameters else ""
        raise InvalidRequest(
            f"The key of the certificate request (algorithm {kind}{curve}) cannot be read, or is of a kind that is not"
            " accepted; use RSA, ECDSA on P-256, P-384 or P-521, or Ed25519."
        )
    return public_key, algorithm


def _verify(read: SignedRequest, public_key: PublicKey, signature_algorithm: str, algorithm: str) -> None:
    """Verify the signature over the bytes that were received. Raises InvalidRequest."""
    kind, _, digest = signature_algorithm.partition("-")
    if kind != algorithm.partition("-")[0]:
        raise InvalidRequest(
            f"The signature of the certificate request ({signature_algorithm}) does not fit its {algorithm} key."
        )
    try:
        match public_key:
            case RSAPublicKey():
                public_key.verify(read.signature, read.signed, PKCS1v15(), _HASHES[digest])
            case EllipticCurvePublicKey():
                public_key.verify(read.signature, read.signed, ECDSA(_HASHES[digest]))
            case _:
                public_key.verify(read.signature, read.signed)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise InvalidRequest("The signature of the certificate request does not fit its key.") from None


def _subject(read: SignedRequest) -> Mapping[str, tuple[str, ...]]:
    """The values of the subject by attribute, without empty ones."""
    found: dict[str, tuple[str, ...]] = {}
    for oid, value in read.subject:
        name = attribute_name(oid)
        if value is None and name in LIMITS:
            raise InvalidRequest(f"The subject of the certificate request has a value of {name} that is not text.")
        if value != "":
            found[name] = (*found.get(name, ()), "(not text)" if value is None else value)
    return found


def _common_name(subject: Mapping[str, tuple[str, ...]]) -> tuple[str | None, tuple[Name, ...]]:
    """The common name, and the name that it spells, if any. It is then in canonical spelling."""
    values = subject.get(COMMON_NAME, ())
    if len(values) > 1:
        raise InvalidRequest("The certificate request has more than one common name.")
    if not values:
        return None, ()
    name = common_name_of(values[0])
    return (name.value, (name,)) if name else (values[0], ())


def _requested(extensions: Mapping[str, bytes]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The usages that are asked for, and the names of other extensions. Raises InvalidRequest for a CA.

    An extension that cannot be read counts as one of the others, since it selects nothing.
    """
    usages: list[str] = []
    others: list[str] = []
    for oid, value in extensions.items():
        try:
            if oid == KEY_USAGE:
                usages += key_usages(value)
            elif oid == EXTENDED_KEY_USAGE:
                usages += map(usage_of_purpose, extended_key_usages(value))
            elif oid == BASIC_CONSTRAINTS:
                if is_for_ca(value):
                    raise InvalidRequest("The certificate request asks for a CA certificate (basicConstraints).")
            elif oid not in {SUBJECT_ALTERNATIVE_NAME, SUBJECT_KEY_IDENTIFIER}:
                others.append(extension_name(oid))
        except MalformedDER:
            others.append(extension_name(oid))
    if not USAGES_OF_A_CA.isdisjoint(usages):
        raise InvalidRequest("The certificate request asks for the key usage of a CA (keyUsage).")
    return tuple(dict.fromkeys(usages)), tuple(others)


def _name(alternative: AlternativeName) -> Name:
    type_, content = alternative
    if type_ not in {"dns", "ip"}:
        raise InvalidRequest(
            f"The certificate request has {type_} in subjectAltName; only DNS names and IP addresses are certified."
        )
    if type_ == "ip" and len(content) not in {4, 16}:
        raise InvalidRequest(
            f"The certificate request has an IP address of {len(content)} octets in subjectAltName; an address has 4"
            " or 16."
        )
    try:
        # Latin-1 reads all octets, and dns_name refuses those that are not ASCII.
        return dns_name(content.decode("latin-1")) if type_ == "dns" else ip_address(str(ipaddress.ip_address(content)))
    except InvalidName as error:
        raise InvalidRequest(f"The certificate request has a name that is not accepted: {error}") from None
