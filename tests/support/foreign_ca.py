"""A CA that is somebody else's: what it answers to a certificate request.

Certificates are built byte by byte, so that tests can build wrong ones, which no library does.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kms.pki.keys import public_key_der
from tests.support import csrs, requests
from tests.support.csrs import BITS, BOOLEAN, INTEGER, OCTETS, SEQUENCE, UTF8, extension, oid, subject, tlv
from tests.support.pki import NOW, key

DAY = timedelta(days=1)
DURATION = 30 * DAY
ECDSA_SHA1 = tlv(SEQUENCE, oid("1.2.840.10045.4.1"))
_HASHES: Mapping[str, hashes.HashAlgorithm] = MappingProxyType(
    {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}  # noqa: S303 - one of the lies
)
AUTHORITY_KEY, NAME_CONSTRAINTS = "2.5.29.35", "2.5.29.30"


def ec_key(which: str) -> EllipticCurvePrivateKey:
    """A key of the CA."""
    found = key("ECDSA", 256, which)
    assert isinstance(found, EllipticCurvePrivateKey)
    return found


_ISSUER = subject((requests.COMMON_NAME, UTF8, b"Corporate Issuing CA"))


@dataclass(frozen=True)
class Contents:
    """A certificate before it is signed. `subject` and `public_key` are DER, `extensions` are by object identifier."""

    subject: bytes
    public_key: bytes
    extensions: Mapping[str, bytes]
    issuer: bytes = _ISSUER
    serial_number: bytes = b"\x4d" * 16
    not_before: datetime = NOW - timedelta(minutes=1)
    not_after: datetime = NOW + DURATION
    version: bytes = tlv(0xA0, tlv(INTEGER, b"\x02"))
    unique_identifiers: bytes = b""
    more_extensions: tuple[bytes, ...] = ()
    algorithm: bytes = csrs.ECDSA_SHA256
    hash: str = "sha256"

    def with_extension(self, type_: str, value: bytes, *, critical: bool = False) -> Contents:
        """The contents with this extension in place of another of its type."""
        built = extension(type_, value, critical=b"\xff" if critical else None)
        return replace(self, extensions={**self.extensions, type_: built})

    def without_extension(self, type_: str) -> Contents:
        """The contents without the extension of this type."""
        return replace(self, extensions={key: value for key, value in self.extensions.items() if key != type_})

    def with_subject(self, *attributes: tuple[str, int, bytes]) -> Contents:
        """The contents with another subject."""
        return replace(self, subject=subject(*attributes))

    def signed(self, with_key: EllipticCurvePrivateKey) -> bytes:
        """The certificate in DER."""
        listed = tlv(0xA3, tlv(SEQUENCE, *self.extensions.values(), *self.more_extensions)) if self.extensions else b""
        tbs = tlv(
            SEQUENCE,
            self.version,
            tlv(INTEGER, self.serial_number),
            self.algorithm,
            self.issuer,
            tlv(SEQUENCE, _time(self.not_before), _time(self.not_after)),
            self.subject,
            self.public_key,
            self.unique_identifiers,
            listed,
        )
        signature = with_key.sign(tbs, ECDSA(_HASHES[self.hash], deterministic_signing=True))
        return tlv(SEQUENCE, tbs, self.algorithm, tlv(BITS, b"\0" + signature))


def _time(moment: datetime) -> bytes:
    return tlv(0x17, f"{moment:%y%m%d%H%M%SZ}".encode())


def authority(common_name: str, issuer: str, *, which: str | None = None, path_length: int | None = None) -> Contents:
    """The contents of the certificate of a CA; `which` is the name of its key."""
    public_key = public_key_der(ec_key(which or common_name).public_key())
    limit = b"" if path_length is None else tlv(INTEGER, bytes([path_length]))
    contents = Contents(
        subject=subject((requests.COMMON_NAME, UTF8, common_name.encode())),
        public_key=public_key,
        extensions={},
        issuer=subject((requests.COMMON_NAME, UTF8, issuer.encode())),
        not_before=NOW - DAY,
        not_after=NOW + 400 * DAY,
    )
    contents = contents.with_extension(requests.BASIC, tlv(SEQUENCE, tlv(BOOLEAN, b"\xff"), limit), critical=True)
    contents = contents.with_extension(requests.KEY_USAGE, tlv(BITS, b"\x01\x06"), critical=True)
    return contents.with_extension(requests.KEY_ID, tlv(OCTETS, _key_id(public_key)))


def _key_id(public_key: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_key)
    return digest.finalize()[:20]


ROOT, ISSUING = "Corporate Root", "Corporate Issuing CA"
ANCHOR = authority(ROOT, ROOT).signed(ec_key(ROOT))


@dataclass(frozen=True)
class Answer:
    """What the CA returns: the end entity's certificate, those above it, and how they are written down."""

    leaf: Contents
    issuing: Contents = field(default_factory=lambda: authority(ISSUING, ROOT))
    leaf_key: str = ISSUING
    issuing_key: str = ROOT
    above: tuple[bytes, ...] = ()
    write: Callable[[tuple[bytes, ...]], bytes] = field(default=lambda chain: b"".join(map(pem, chain)))

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates in DER."""
        return self.leaf.signed(ec_key(self.leaf_key)), self.issuing.signed(ec_key(self.issuing_key)), *self.above

    @property
    def written(self) -> bytes:
        """As it is returned."""
        return self.write(self.chain)


def pem(der: bytes, label: str = "CERTIFICATE", headers: str = "") -> bytes:
    """One block."""
    text = textwrap.fill(base64.b64encode(der).decode(), 64)
    return f"-----BEGIN {label}-----\n{headers}{text}\n-----END {label}-----\n".encode()


def answer_to(der: bytes) -> Answer:
    """What an honest CA answers that copies names and subject, and issues for TLS servers."""
    request = x509.load_der_x509_csr(der)
    present = {each.oid.dotted_string: each.value.public_bytes() for each in request.extensions}
    subject_ = request.subject
    if not subject_.get_attributes_for_oid(x509.oid.NameOID.ORGANIZATION_NAME):
        organization = x509.NameAttribute(x509.oid.NameOID.ORGANIZATION_NAME, requests.SUBJECT["organizations"][0])
        subject_ = x509.Name([*subject_, organization])
    public_key = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    issuer_key = public_key_der(ec_key(ISSUING).public_key())
    contents = Contents(subject=subject_.public_bytes(), public_key=public_key, extensions={})
    contents = contents.with_extension(requests.BASIC, tlv(SEQUENCE), critical=True)
    contents = contents.with_extension(requests.KEY_USAGE, tlv(BITS, b"\x07\x80"), critical=True)
    contents = contents.with_extension(requests.PURPOSES, tlv(SEQUENCE, oid(requests.SERVER_AUTH)))
    contents = contents.with_extension(AUTHORITY_KEY, tlv(SEQUENCE, tlv(0x80, _key_id(issuer_key))))
    for type_, value in present.items():
        contents = contents.with_extension(type_, value)
    return Answer(contents)
