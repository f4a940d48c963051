"""Certificate revocation lists (RFC 5280, 5): entries, dates and a number in, DER out.

cryptography encodes and signs a list, but adding entries to its builder takes quadratic time and an object for each. So
it builds the list without entries; this module inserts them and signs the result. The bytes follow from the arguments,
including the signature (deterministic ECDSA, RFC 6979): all replicas publish the same list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from kms.pki.certificate import Signer, signature_hash
from kms.pki.keys import PrivateKey

UNSPECIFIED = "unspecified"
KEY_COMPROMISE = "keyCompromise"

REASON_CODES: Mapping[str, int] = MappingProxyType(
    {
        UNSPECIFIED: 0,
        KEY_COMPROMISE: 1,
        "cACompromise": 2,
        "affiliationChanged": 3,
        "superseded": 4,
        "cessationOfOperation": 5,
        "certificateHold": 6,
        "removeFromCRL": 8,
        "privilegeWithdrawn": 9,
        "aACompromise": 10,
    }
)
"""The reasons of RFC 5280, 5.3.1, by their names there."""

_SEQUENCE, _INTEGER, _BIT_STRING, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0x02, 0x03, 0x17, 0x18
_LAST_OF_UTC_TIME = 2049
_LONG_FORM = 0x80
_REASON_CODE = bytes.fromhex("300c300a0603551d1504030a01")
"""An entry's extensions with nothing but the reason code, up to its one octet."""
_FIRST_OF_SERIAL = slice(3, 5)
"""Where an encoded entry has the length and the first octet of its serial number."""


@dataclass(frozen=True, slots=True)
class ListTemplate:
    """The contents of a list. `entries` are encoded and in order; the number is never used twice."""

    entries: Sequence[bytes]
    number: int
    this_update: datetime
    next_update: datetime


def encode_entry(serial_number: int, time: datetime, reason: str) -> bytes:
    """One revoked certificate in DER. The reason `unspecified` is left out (RFC 5280, 5.3.1).

    It is concatenated by hand, since there may be a hundred thousand. No entry is so long that its length takes two
    octets.
    """
    code = REASON_CODES[reason]
    serial = serial_number.to_bytes(serial_number.bit_length() // 8 + 1, "big")
    date = _date(time)
    extensions = _REASON_CODE + bytes((code,)) if code else b""
    length = 2 + len(serial) + len(date) + len(extensions)
    return bytes((_SEQUENCE, length, _INTEGER, len(serial))) + serial + date + extensions


def sort_entries(entries: Iterable[bytes]) -> list[bytes]:
    """The entries in the same order on every replica.

    Sorting a hundred thousand at once would block all other threads for 50 ms. So they are first divided by the first
    octet of their serial numbers, which are evenly distributed, and then sorted part by part.
    """
    parts: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for each in entries:
        parts[each[_FIRST_OF_SERIAL]].append(each)
    return [entry for _, part in sorted(parts.items()) for entry in sorted(part)]


def revocation_list(template: ListTemplate, signer: Signer) -> bytes:
    """The list of the CA `signer` in DER, with authority key identifier and number; deterministic."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(template.this_update)
        .next_update(template.next_update)
        .add_extension(signer.authority_key_identifier, critical=False)
        .add_extension(x509.CRLNumber(template.number), critical=False)
    )
    hash_ = None if isinstance(signer.key, Ed25519PrivateKey) else signature_hash(signer.key)
    version, algorithm, *others, extensions = _elements(builder.sign(signer.key, hash_).tbs_certlist_bytes)
    # Without entries, revokedCertificates must be absent (RFC 5280, 5.1.2.6).
    entries = (_tlv(_SEQUENCE, *template.entries),) if template.entries else ()
    signed = _tlv(_SEQUENCE, version, algorithm, *others, *entries, extensions)
    return _tlv(_SEQUENCE, signed, algorithm, _tlv(_BIT_STRING, b"\0", _signature(signed, signer.key)))


def _signature(message: bytes, key: PrivateKey) -> bytes:
    match key:
        case Ed25519PrivateKey():
            return key.sign(message)
        case RSAPrivateKey():
            return key.sign(message, PKCS1v15(), signature_hash(key))
        case _:
            return key.sign(message, ECDSA(signature_hash(key), deterministic_signing=True))


def _date(time: datetime) -> bytes:
    """A Time of RFC 5280, 4.1.2.5: in UTC, to the second."""
    year = f"{time.year % 100:02}" if time.year <= _LAST_OF_UTC_TIME else f"{time.year}"
    text = f"{year}{time.month:02}{time.day:02}{time.hour:02}{time.minute:02}{time.second:02}Z"
    return bytes((_UTC_TIME if len(year) == len("49") else _GENERALIZED_TIME, len(text))) + text.encode()


def _tlv(tag: int, *contents: bytes) -> bytes:
    length = sum(map(len, contents))
    if length < _LONG_FORM:
        return b"".join((bytes((tag, length)), *contents))
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return b"".join((bytes((tag, _LONG_FORM | len(octets))), octets, *contents))


def _elements(sequence: bytes) -> list[bytes]:
    """The elements of a SEQUENCE, each with its tag and length. For trusted DER only."""
    begin, end = _contents(sequence, 0)
    elements = []
    while begin < end:
        _, after = _contents(sequence, begin)
        elements.append(sequence[begin:after])
        begin = after
    return elements


def _contents(der: bytes, at: int) -> tuple[int, int]:
    """Begin and end of the contents of the element at offset `at`."""
    length = der[at + 1]
    begin = at + 2
    if length >= _LONG_FORM:
        octets = length - _LONG_FORM
        length = int.from_bytes(der[begin : begin + octets], "big")
        begin += octets
    return begin, begin + length
