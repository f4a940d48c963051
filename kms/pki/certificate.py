"""End-entity certificates: their contents, and their signature by a CA.

The bytes follow from the template and the signer, including the signature (deterministic ECDSA, RFC 6979). Two replicas
that sign the same order at the same time produce the same certificate, so no write leaves an unknown one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from kms.pki.extensions import find_extension
from kms.pki.keys import PrivateKey, PublicKey, key_algorithm
from kms.pki.names import Name, dns_name, ip_address
from kms.pki.subjects import subject_name
from kms.pki.usages import KNOWN_USAGES, extended_key_usage, key_usage

_SERIAL_BITS = 127
_END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The date that means "no end" in X.509 (RFC 5280, 4.1.2.5)."""
Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_Extension = x509.Extension[x509.ExtensionType]
_KEPT_EXTENSIONS = 64
_HASH_BY_CURVE_SIZE: Mapping[int, Hash] = MappingProxyType(
    {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
)


class _Extensions(NamedTuple):
    """Encoded extensions: those before the names of key, CA and subject, that of the CA's key, and those after."""

    first: tuple[_Extension, ...]
    authority: _Extension
    last: tuple[_Extension, ...]


@dataclass(frozen=True, slots=True)
class Signer:
    """A CA that can sign: its certificate, its key, and the certificates above it.

    `issuers` starts with the issuer of `certificate` and ends with the root, where it is known. Values that every
    signature needs and that depend on the CA alone are computed once, here.
    """

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False, compare=False)
    issuers: tuple[x509.Certificate, ...] = ()
    not_after: datetime = field(init=False)
    """The end of the first certificate in the chain to expire: no signed certificate may outlast it."""
    authority_key_identifier: x509.AuthorityKeyIdentifier = field(init=False, repr=False, compare=False)
    chain: str = field(init=False, repr=False, compare=False)
    """The CA's certificate and those above it in PEM, as they follow an end entity's certificate."""
    signs_lists: bool = field(init=False, repr=False, compare=False)
    """Whether the CA may sign revocation lists too: cRLSign, or no key usage at all (RFC 5280, 4.2.1.3)."""
    extensions: Callable[[frozenset[str], str, str | None, str | None], _Extensions] = field(
        init=False, repr=False, compare=False
    )
    """What certificates have alike, by usages, algorithm of the key, and URLs; the last ones used are kept."""

    def __post_init__(self) -> None:
        certificates = (self.certificate, *self.issuers)
        identifier, signs_lists = authority_key_identifier(self.certificate), may_sign_lists(self.certificate)
        derived = {
            "not_after": min(each.not_valid_after_utc for each in certificates),
            "authority_key_identifier": identifier,
            "chain": "".join(map(certificate_pem, chain_for_clients(certificates))),
            "signs_lists": signs_lists,
            "extensions": lru_cache(maxsize=_KEPT_EXTENSIONS)(
                partial(_extensions, authority=identifier, signs_lists=signs_lists)
            ),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def with_key(self, key: PrivateKey) -> Signer:
        """The same CA, with an object that signs for its key (kms.pki.stand_in). Computes nothing again."""
        other = copy(self)
        object.__setattr__(other, "key", key)
        return other


@dataclass(frozen=True, slots=True)
class LeafTemplate:
    """The contents of an end-entity certificate. `subject` is by attribute, without the common name.

    `crl_url` locates the CA's revocation list, `ca_url` its certificate; None: the certificate does not name it.
    """

    public_key: PublicKey
    names: tuple[Name, ...]
    common_name: str | None
    subject: Mapping[str, tuple[str, ...]]
    usages: frozenset[str]
    serial: int
    not_before: datetime
    not_after: datetime
    crl_url: str | None = None
    ca_url: str | None = None


def sign_leaf(template: LeafTemplate, signer: Signer) -> x509.Certificate:
    """The certificate of RFC 5280 for this template.

    Its extensions: basicConstraints without CA, the key usages that the key supports, extended key usage, subject key
    identifier computed from the key, authority key identifier from the issuer, the names (critical if the subject is
    empty), and the locations of the CA's revocation list, if it may sign one, and certificate. The same template and
    signer give the same bytes.

    Raises ValueError for an invalid template: no names, an unknown usage or attribute, a key that no key usage suits,
    an empty lifetime or one beyond the CA's. Callers have checked that before.
    """
    algorithm = key_algorithm(template.public_key)
    if algorithm is None or not template.names:
        raise ValueError("a certificate needs a key of a known algorithm and at least one name")
    if unknown := template.usages - KNOWN_USAGES:
        raise ValueError(f"there are no usages {sorted(unknown)} for end entities")
    _check_lifetime(template.not_before, template.not_after, signer)
    subject = subject_name(template.common_name, template.subject)
    first, authority, last = signer.extensions(template.usages, algorithm, template.crl_url, template.ca_url)
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(template.public_key)
    names = _alternative_names(template.names)
    own = x509.Extension(key_identifier.oid, False, key_identifier), x509.Extension(names.oid, len(subject) == 0, names)
    builder = (
        x509.CertificateBuilder(extensions=[*first, own[0], authority, own[1], *last])
        .issuer_name(signer.certificate.subject)
        .subject_name(subject)
        .public_key(template.public_key)
        .serial_number(template.serial)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
    )
    return sign(builder, signer.key)


def sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    """Sign deterministically, with the hash for the key."""
    if isinstance(key, Ed25519PrivateKey):
        return builder.sign(key, None)
    deterministic = True if isinstance(key, EllipticCurvePrivateKey) else None
    return builder.sign(key, signature_hash(key), ecdsa_deterministic=deterministic)


def signature_hash(key: RSAPrivateKey | EllipticCurvePrivateKey) -> Hash:
    """The hash for signatures with the key."""
    return _HASH_BY_CURVE_SIZE[key.curve.key_size] if isinstance(key, EllipticCurvePrivateKey) else hashes.SHA256()


def chain_pem(leaf: x509.Certificate, signer: Signer) -> str:
    """The certificate and its chain for a TLS server, each certified by the next (RFC 8555, 9.1).

    The root is left out, because clients that trust it have it. If the CA is a root itself, it is included, because
    certbot rejects a chain of one certificate. PEM only, with a newline at the end.
    """
    return certificate_pem(leaf) + signer.chain


def chain_for_clients(chain: Sequence[x509.Certificate]) -> Sequence[x509.Certificate]:
    """The part of a CA's chain that clients get: all but roots, or the CA's own certificate if that is a root."""
    return [each for each in chain if not is_root(each)] or chain[:1]


def may_sign_lists(certificate: x509.Certificate) -> bool:
    """Whether the key in that certificate of a CA may sign revocation lists (RFC 5280, 4.2.1.3)."""
    usage = find_extension(certificate, x509.KeyUsage)
    return usage is None or usage.crl_sign


def certificate_pem(certificate: x509.Certificate) -> str:
    """One certificate in PEM, with a newline at the end."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def serial_number(*, uid: str, name: str, digest: str) -> int:
    """The serial number for one order and one request: positive and of exactly 127 bits.

    It follows from the order's UID and name, whose name alone has 128 unpredictable bits, and from the digest of the
    request. So the same order and request get the same number on every replica.
    """
    return _as_serial(hashlib.sha256(f"{uid}\0{name}\0{digest}".encode()).digest())


def random_serial(entropy: Callable[[int], bytes]) -> int:
    """A serial number for a certificate without an order; `entropy` returns that many unpredictable bytes."""
    return _as_serial(entropy(16))


def _as_serial(material: bytes) -> int:
    number = int.from_bytes(material[:16], "big") >> 1
    return number | 1 << (_SERIAL_BITS - 1)


def validity(
    base: datetime,
    duration: timedelta,
    *,
    requested_not_before: datetime | None,
    requested_not_after: datetime | None,
    ca_not_after: datetime | None,
    backdate: timedelta,
) -> tuple[datetime, datetime]:
    """NotBefore and notAfter of a certificate that is accepted for issuance at `base`.

    Without requested dates the certificate begins `backdate` before `base`, for clocks that are slow, and lasts for
    `duration`, or until the CA's certificate ends. Requested dates are used unchanged, to the second: the policy was
    applied to them when they were requested.

    `ca_not_after` is None for a root. Raises ValueError with a message for people where the requested end is beyond
    the CA's, or the lifetime would be empty.
    """
    not_before = (requested_not_before or base - backdate).replace(microsecond=0)
    latest = ca_not_after or _END_OF_TIME
    if requested_not_after is not None:
        not_after = requested_not_after
    else:
        not_after = latest if latest - not_before < duration else not_before + duration
    not_after = not_after.replace(microsecond=0)
    if not_after > latest:
        raise ValueError(f"notAfter {not_after:%Y-%m-%dT%H:%M:%SZ} is after the end of the CA's own certificate.")
    if not_after <= max(not_before, base):
        raise ValueError("The certificate would end before it begins.")
    return not_before, not_after


def chain_end(chain: str) -> datetime:
    """When the first certificate of a chain in PEM ends. Raises ValueError if it cannot be read."""
    return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(chain.encode()))


def is_root(certificate: x509.Certificate) -> bool:
    """Whether the certificate is self-signed (RFC 5280, 3.2)."""
    return certifies(certificate, certificate)


def certifies(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether `issuer` has issued `certificate`: by its name, and by a signature that its key verifies."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def issuer_id(certificate: x509.Certificate) -> str:
    """Identifies the issuer of a certificate: its key by the identifier in hexadecimal, else its name by the digest.

    A serial number is unique for one issuer only (RFC 5280, 4.1.2.2). Raises ValueError if neither can be read.
    """
    authority = find_extension(certificate, x509.AuthorityKeyIdentifier)
    if authority is not None and authority.key_identifier:
        return authority.key_identifier.hex()
    return hashlib.sha256(certificate.issuer.public_bytes()).hexdigest()


def authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Identifies the issuer's key: by the identifier in its certificate, else by a computed one (RFC 5280, 4.2.1.1).

    It does not use issuer and serial number, so that a CA certificate can be renewed above issued certificates.
    """
    identifier = find_extension(issuer, x509.SubjectKeyIdentifier)
    if identifier is None:
        public_key = issuer.public_key()
        if not isinstance(public_key, PublicKey):
            raise ValueError("the key of the CA is neither RSA nor ECDSA nor Ed25519")
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _extensions(
    usages: frozenset[str],
    algorithm: str,
    crl_url: str | None,
    ca_url: str | None,
    *,
    authority: x509.AuthorityKeyIdentifier,
    signs_lists: bool,
) -> _Extensions:
    usage, purposes = key_usage(usages, algorithm), extended_key_usage(usages)
    first = [_encoded(x509.BasicConstraints(ca=False, path_length=None), critical=True)]
    if usage is not None:
        first.append(_encoded(usage, critical=True))
    if purposes is not None:
        first.append(_encoded(purposes, critical=False))
    last = []
    if crl_url is not None and signs_lists:
        last.append(_encoded(distribution_point(crl_url), critical=False))
    if ca_url is not None:
        last.append(_encoded(issuer_location(ca_url), critical=False))
    return _Extensions(tuple(first), _encoded(authority, critical=False), tuple(last))


def _encoded(extension: x509.ExtensionType, *, critical: bool) -> _Extension:
    """The extension as bytes, which cryptography does not encode again for each certificate."""
    return x509.Extension(extension.oid, critical, x509.UnrecognizedExtension(extension.oid, extension.public_bytes()))


def _check_lifetime(not_before: datetime, not_after: datetime, signer: Signer) -> None:
    if not not_before < not_after:
        raise ValueError("a certificate must not end before it begins")
    if not_after > signer.not_after:
        raise ValueError("a certificate must not outlive the CA that signs it")


def _alternative_names(names: tuple[Name, ...]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [
            x509.DNSName(name.value) if name.type == "dns" else x509.IPAddress(ipaddress.ip_address(name.value))
            for name in names
        ]
    )


def name_in(general_name: x509.GeneralName) -> Name | None:
    """The name in a subjectAltName; None for other types than DNS and IP address. Raises InvalidName."""
    match general_name:
        case x509.DNSName(value=value):
            return dns_name(value)
        case x509.IPAddress(value=address):
            return ip_address(str(address))
        case _:
            return None


def distribution_point(url: str) -> x509.CRLDistributionPoints:
    """The location of the CA's revocation list (RFC 5280, 4.2.1.13)."""
    place = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
    return x509.CRLDistributionPoints([place])


def issuer_location(url: str) -> x509.AuthorityInformationAccess:
    """The location of the CA's certificate (RFC 5280, 4.2.2.1)."""
    place = x509.UniformResourceIdentifier(url)
    return x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)])
