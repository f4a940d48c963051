"""A CA of somebody else's that lies, in every way that a returned certificate can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kms.pki.keys import public_key_der
from kms.pki.returned import Rule
from tests.support import csrs, requests
from tests.support.csrs import BITS, BOOLEAN, DNS, INTEGER, SEQUENCE, UTF8, names, oid, subject, tlv
from tests.support.foreign_ca import (
    ANCHOR,
    AUTHORITY_KEY,
    DAY,
    DURATION,
    ECDSA_SHA1,
    ISSUING,
    NAME_CONSTRAINTS,
    ROOT,
    Answer,
    Contents,
    answer_to,
    authority,
    ec_key,
    pem,
)
from tests.support.pki import NOW

POISON = "1.3.6.1.4.1.11129.2.4.3"
CRL_LOCATIONS = "2.5.29.31"
ECDSA_SHA384 = tlv(SEQUENCE, oid("1.2.840.10045.4.3.3"))
FOREIGN = authority("Foreign", "Foreign").signed(ec_key("Foreign"))

Change = Callable[[Answer], Answer]


def _leaf(change: Callable[[Contents], Contents]) -> Change:
    return lambda answer: replace(answer, leaf=change(answer.leaf))


def _issuing(change: Callable[[Contents], Contents]) -> Change:
    return lambda answer: replace(answer, issuing=change(answer.issuing))


def _written(write: Callable[[tuple[bytes, ...]], bytes]) -> Change:
    return lambda answer: replace(answer, write=write)


def _set(type_: str, value: bytes, *, critical: bool = False) -> Change:
    return _leaf(lambda leaf: leaf.with_extension(type_, value, critical=critical))


def _drop(type_: str) -> Change:
    return _leaf(lambda leaf: leaf.without_extension(type_))


def _names(*values: str | tuple[int, bytes]) -> Change:
    return _set(requests.SAN, names(*values))


def _subject(*attributes: tuple[str, int, bytes]) -> Change:
    """The subject that the profile sets, and more."""
    return _leaf(lambda leaf: leaf.with_subject((requests.ORGANIZATION, UTF8, b"Example"), *attributes))


def _begins(moment: datetime) -> Change:
    return _leaf(lambda leaf: replace(leaf, not_before=moment))


def _ends(moment: datetime) -> Change:
    return _leaf(lambda leaf: replace(leaf, not_after=moment))


def _compressed(leaf: Contents) -> Contents:
    """The same point in another encoding."""
    public_key = x509.load_der_x509_certificate(leaf.signed(ec_key(ISSUING))).public_key()
    assert isinstance(public_key, EllipticCurvePublicKey)
    algorithm = tlv(SEQUENCE, oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7"))
    point = public_key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return replace(leaf, public_key=tlv(SEQUENCE, algorithm, tlv(BITS, b"\0" + point)))


def _long_form(der: bytes) -> bytes:
    """The outermost length in one octet more than DER has it."""
    return bytes([der[0], 0x83, 0]) + der[2:]


def _below(*common_names: str, path_length: int | None = None) -> Change:
    """CAs between the issuing one and the root, the lowest first."""

    def change(answer: Answer) -> Answer:
        chain = [*common_names, ROOT]
        above = tuple(
            authority(name, upper, path_length=path_length).signed(ec_key(upper)) for name, upper in pairwise(chain)
        )
        lowest = subject((requests.COMMON_NAME, UTF8, chain[0].encode()))
        return replace(
            answer, issuing=replace(answer.issuing, issuer=lowest), issuing_key=chain[0], above=(*above, *answer.above)
        )

    return change


def _subtree(kind: str, domain: str) -> bytes:
    tag = 0xA0 if kind == "permitted" else 0xA1
    return tlv(SEQUENCE, tlv(tag, tlv(SEQUENCE, tlv(DNS, domain.encode()))))


LIES: Mapping[str, tuple[Change, Rule]] = MappingProxyType(
    {
        "nothing": (_written(lambda _: b""), "Unreadable"),
        "DER": (_written(b"".join), "Unreadable"),
        "a key beside it": (_written(lambda chain: pem(chain[0]) + pem(chain[1], "PRIVATE KEY")), "Unreadable"),
        "a request": (_written(lambda chain: pem(chain[0], "CERTIFICATE REQUEST")), "Unreadable"),
        "headers": (_written(lambda chain: pem(chain[0], headers="Subject: a\n\n") + pem(chain[1])), "Unreadable"),
        "half a block": (_written(lambda chain: pem(chain[0]) + pem(chain[1])[:-20]), "Unreadable"),
        "damaged base64": (_written(lambda chain: pem(chain[0]).replace(b"M", b"=", 1)), "Unreadable"),
        "eleven certificates": (_written(lambda chain: pem(chain[0]) + 10 * pem(chain[1])), "Unreadable"),
        "too much text": (_written(lambda chain: pem(chain[0]) + bytes(128 * 1024) + pem(chain[1])), "Unreadable"),
        "bytes behind the end": (_written(lambda chain: pem(chain[0] + b"\0") + pem(chain[1])), "Unreadable"),
        "a length in the long form": (_written(lambda chain: pem(_long_form(chain[0])) + pem(chain[1])), "Unreadable"),
        "unreadable names": (_set(requests.SAN, b"\x30\x03\x82\x09a"), "Unreadable"),
        "an extension twice": (
            _leaf(lambda leaf: replace(leaf, more_extensions=(leaf.extensions[requests.PURPOSES],))),
            "Unreadable",
        ),
        "version 1": (_leaf(lambda leaf: replace(leaf, version=b"", extensions={})), "Unreadable"),
        "unique identifiers": (
            _leaf(lambda leaf: replace(leaf, unique_identifiers=tlv(0x82, b"\0\1"))),
            "Unreadable",
        ),
        "the issuing CA first": (_written(lambda chain: pem(chain[1]) + pem(chain[0])), "KeyMismatch"),
        "another key": (
            _leaf(lambda leaf: replace(leaf, public_key=public_key_der(ec_key("another").public_key()))),
            "KeyMismatch",
        ),
        "another encoding of the key": (_leaf(_compressed), "KeyMismatch"),
        "no names": (_drop(requests.SAN), "NameMismatch"),
        "another name": (_names("evil.example.com"), "NameMismatch"),
        "a name more": (_names(requests.WEB, "evil.example.com"), "NameMismatch"),
        "a wildcard": (_names(requests.WEB, "*.example.com"), "NameMismatch"),
        "an address": (_names(requests.WEB, (csrs.IP, b"\x0a\0\0\1")), "NameMismatch"),
        "an email address": (_names(requests.WEB, (csrs.EMAIL, b"a@example.com")), "NameMismatch"),
        "a URI": (_names(requests.WEB, (0x86, b"spiffe://example.com/a")), "NameMismatch"),
        "a name that is none": (_names(requests.WEB, "a..b"), "NameMismatch"),
        "another common name": (_subject((requests.COMMON_NAME, UTF8, b"evil.example.com")), "NameMismatch"),
        "text as common name": (_subject((requests.COMMON_NAME, UTF8, b"Jane Doe")), "NameMismatch"),
        "two common names": (_subject(*[(requests.COMMON_NAME, UTF8, requests.WEB.encode())] * 2), "NameMismatch"),
        "no organization": (_leaf(lambda leaf: leaf.with_subject()), "SubjectMismatch"),
        "another organization": (
            _leaf(lambda leaf: leaf.with_subject((requests.ORGANIZATION, UTF8, b"Evil"))),
            "SubjectMismatch",
        ),
        "an organization more": (_subject((requests.ORGANIZATION, UTF8, b"Evil")), "SubjectMismatch"),
        "a unit without rules": (_subject((requests.UNIT, UTF8, b"a")), "SubjectMismatch"),
        "an unknown attribute": (_subject(("1.2.3.6", UTF8, b"a")), "SubjectMismatch"),
        "a CA": (_set(requests.BASIC, tlv(SEQUENCE, tlv(BOOLEAN, b"\xff"))), "NotAnEndEntity"),
        "keyCertSign": (_set(requests.KEY_USAGE, tlv(BITS, b"\x02\x84")), "NotAnEndEntity"),
        "cRLSign": (_set(requests.KEY_USAGE, tlv(BITS, b"\x01\x82")), "NotAnEndEntity"),
        "no purposes": (_drop(requests.PURPOSES), "UsageMismatch"),
        "any purpose": (_set(requests.PURPOSES, tlv(SEQUENCE, oid(requests.ANY_PURPOSE))), "UsageMismatch"),
        "another purpose": (
            _set(requests.PURPOSES, tlv(SEQUENCE, oid(requests.SERVER_AUTH), oid(requests.EMAIL_PROTECTION))),
            "UsageMismatch",
        ),
        "an unknown critical extension": (_set("1.2.3.4", b"\x05\0", critical=True), "UnknownCriticalExtension"),
        "critical name constraints": (
            _set(NAME_CONSTRAINTS, _subtree("permitted", "example.com"), critical=True),
            "UnknownCriticalExtension",
        ),
        "poison": (_set(POISON, b"\x05\0", critical=True), "UnknownCriticalExtension"),
        "poison that is not critical": (_set(POISON, b"\x05\0"), "UnknownCriticalExtension"),
        "SHA-1": (_leaf(lambda leaf: replace(leaf, algorithm=ECDSA_SHA1, hash="sha1")), "WeakSignature"),
        "serial number zero": (_leaf(lambda leaf: replace(leaf, serial_number=b"\0")), "InvalidSerialNumber"),
        "a negative serial number": (_leaf(lambda leaf: replace(leaf, serial_number=b"\x80")), "InvalidSerialNumber"),
        "a serial number of 21 octets": (
            _leaf(lambda leaf: replace(leaf, serial_number=b"\x4d" * 21)),
            "InvalidSerialNumber",
        ),
        "a beginning in the future": (_begins(NOW + timedelta(minutes=6)), "InvalidDates"),
        "a beginning long ago": (_begins(NOW - timedelta(hours=26)), "InvalidDates"),
        "an end that is over": (_ends(NOW - timedelta(minutes=1)), "InvalidDates"),
        "an end that is near": (_ends(NOW + DURATION / 10), "InvalidDates"),
        "an end beyond the policy": (_ends(NOW + timedelta(days=90, minutes=6)), "InvalidDates"),
        "a wrong signature": (lambda answer: replace(answer, leaf_key="another"), "InvalidChain"),
        "another algorithm than was signed": (
            _written(
                lambda chain: pem(chain[0].replace(csrs.ECDSA_SHA256, ECDSA_SHA384, 1)) + pem(chain[1]),
            ),
            "InvalidChain",
        ),
        "another issuer": (
            _leaf(lambda leaf: replace(leaf, issuer=subject((requests.COMMON_NAME, UTF8, b"a")))),
            "InvalidChain",
        ),
        "another key of the issuer": (_set(AUTHORITY_KEY, tlv(SEQUENCE, tlv(0x80, bytes(20)))), "InvalidChain"),
        "another certificate of the issuer": (
            _set(
                AUTHORITY_KEY,
                tlv(
                    SEQUENCE,
                    tlv(0xA1, tlv(0xA4, subject((requests.COMMON_NAME, UTF8, ROOT.encode())))),
                    tlv(0x82, b"\x07"),
                ),
            ),
            "InvalidChain",
        ),
        "the certificate alone": (_written(lambda chain: pem(chain[0])), "InvalidChain"),
        "an issuer that is no CA": (
            _issuing(lambda ca: ca.with_extension(requests.BASIC, tlv(SEQUENCE))),
            "InvalidChain",
        ),
        "an issuer without basicConstraints": (
            _issuing(lambda ca: ca.without_extension(requests.BASIC)),
            "InvalidChain",
        ),
        "an issuer whose basicConstraints cannot be read": (
            _issuing(lambda ca: ca.with_extension(requests.BASIC, b"\x30\x03\x01")),
            "InvalidChain",
        ),
        "an issuer without keyCertSign": (
            _issuing(lambda ca: ca.with_extension(requests.KEY_USAGE, tlv(BITS, b"\x01\x02"))),
            "InvalidChain",
        ),
        "an issuer that has ended": (_issuing(lambda ca: replace(ca, not_after=NOW)), "InvalidChain"),
        "an issuer that has not begun": (
            _issuing(lambda ca: replace(ca, not_before=NOW + timedelta(seconds=1))),
            "InvalidChain",
        ),
        "an issuer signed with SHA-1": (
            _issuing(lambda ca: replace(ca, algorithm=ECDSA_SHA1, hash="sha1")),
            "InvalidChain",
        ),
        "names that the issuer must not certify": (
            _issuing(lambda ca: ca.with_extension(NAME_CONSTRAINTS, _subtree("permitted", "example.org"))),
            "InvalidChain",
        ),
        "names that the issuer excludes": (
            _issuing(lambda ca: ca.with_extension(NAME_CONSTRAINTS, _subtree("excluded", "example.com"))),
            "InvalidChain",
        ),
        "a chain too deep for a path length": (_below("Policy CA", path_length=0), "InvalidChain"),
        "six certificates": (_below("D", "E", "F", "G"), "InvalidChain"),
        "an issuer of its own": (
            lambda answer: replace(answer, issuing=authority(ISSUING, ISSUING), issuing_key=ISSUING),
            "InvalidChain",
        ),
        "another root of the same name": (
            lambda answer: replace(
                answer, issuing_key="evil", above=(authority(ROOT, ROOT, which="evil").signed(ec_key("evil")),)
            ),
            "InvalidChain",
        ),
        "an end beyond the issuer's": (_issuing(lambda ca: replace(ca, not_after=NOW + 20 * DAY)), "OutlivesAuthority"),
    }
)
"""Each lie alone, about requests.WEB; with the rule that it violates."""

TRUTHS: Mapping[str, Change] = MappingProxyType(
    {
        "as asked": lambda answer: answer,
        "text around the blocks": _written(
            lambda chain: b"subject=a\n" + b"\nissuer=b\n".join(map(pem, chain)) + b"\n"
        ),
        "line ends of other systems": _written(lambda chain: b"".join(map(pem, chain)).replace(b"\n", b"\r\n")),
        "the root too": lambda answer: replace(answer, above=(*answer.above, ANCHOR)),
        "the issuer twice": _written(lambda chain: b"".join(map(pem, (*chain, *chain[1:])))),
        "certificates in another order": _written(lambda chain: pem(chain[0]) + b"".join(map(pem, chain[:0:-1]))),
        "a foreign certificate": lambda answer: replace(answer, above=(*answer.above, FOREIGN)),
        "five certificates": _below("A", "B", "C"),
        "a path length that suffices": _issuing(
            lambda ca: ca.with_extension(
                requests.BASIC, tlv(SEQUENCE, tlv(BOOLEAN, b"\xff"), tlv(INTEGER, b"\0")), critical=True
            )
        ),
        "names that the issuer may certify": _issuing(
            lambda ca: ca.with_extension(NAME_CONSTRAINTS, _subtree("permitted", "example.com"), critical=True)
        ),
        "an extension of the issuer that cannot be read": _issuing(
            lambda ca: ca.with_extension(CRL_LOCATIONS, b"\x30\x03\x01")
        ),
        "names in capitals": _names("WWW.Example.com"),
        "a common name": _subject((requests.COMMON_NAME, UTF8, b"Www.example.com")),
        "a locality": _subject((requests.LOCALITY, UTF8, b"Bern")),
        "no basicConstraints": _drop(requests.BASIC),
        "no keyUsage": _drop(requests.KEY_USAGE),
        "no authorityKeyIdentifier": _drop(AUTHORITY_KEY),
        "another extension": _set("1.2.3.4", b"\x05\0"),
        "a location of a list": _set(
            CRL_LOCATIONS,
            tlv(SEQUENCE, tlv(SEQUENCE, tlv(0xA0, tlv(0xA0, tlv(0x86, b"http://crl.example.com/a"))))),
        ),
        "a serial number of one octet": _leaf(lambda leaf: replace(leaf, serial_number=b"\1")),
        "a serial number of 20 octets": _leaf(lambda leaf: replace(leaf, serial_number=b"\x4d" * 20)),
        "less time": _ends(NOW + 4 * DAY),
        "more time, within the policy": _ends(NOW + 90 * DAY),
        "a fast clock": _begins(NOW + timedelta(minutes=4)),
        "a beginning of yesterday": _begins(NOW - timedelta(hours=23)),
        "SHA-512": _leaf(
            lambda leaf: replace(leaf, algorithm=tlv(SEQUENCE, oid("1.2.840.10045.4.3.4")), hash="sha512")
        ),
    }
)
"""Differences that are accepted."""


def told(der: bytes, changes: Iterable[Change]) -> bytes:
    """What the CA returns for the request, after these changes to an honest answer."""
    answer = answer_to(der)
    for change in changes:
        answer = change(answer)
    return answer.written
