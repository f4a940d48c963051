"""Certificate requests for CAs that get them unchanged: harmless ones, and each way to be harmful."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from hypothesis import strategies as st

from kms.pki.pattern_sets import PatternSet
from kms.pki.patterns import label_pattern, value_pattern
from kms.pki.policy import Policy, Rules, UsageRules
from kms.pki.subject_policy import AttributeRules, SubjectRules
from tests.support import csrs
from tests.support.csrs import PRINTABLE, SEQUENCE, UTF8, alternative_names, extension, names, oid, tlv

USAGES = ("digital signature", "key encipherment", "server auth", "client auth", "any")
SUBJECT: Mapping[str, tuple[str, ...]] = MappingProxyType({"organizations": ("Example",)})
"""What the profile asks for and sets."""
WEB = "www.example.com"

_ANYTHING = Rules(PatternSet([value_pattern("**")]))
POLICY = Policy(
    name="pki/web",
    dns_names=Rules(PatternSet([label_pattern("**.example.com")])),
    wildcards=True,
    ip_addresses=None,
    subject=SubjectRules({each: AttributeRules(_ANYTHING) for each in ("commonName", "organizations", "localities")}),
    usages=UsageRules(allowed=frozenset(USAGES)),
    key_algorithms=frozenset({"ECDSA-P256", "RSA-2048"}),
    signature_algorithms=frozenset({"ECDSA-SHA256", "RSA-SHA256"}),
    maximum_duration=timedelta(days=90),
    maximum_names=10,
)

COMMON_NAME, ORGANIZATION, LOCALITY, UNIT = "2.5.4.3", "2.5.4.10", "2.5.4.7", "2.5.4.11"
SAN, KEY_USAGE, BASIC, KEY_ID, PURPOSES = "2.5.29.17", "2.5.29.15", "2.5.29.19", "2.5.29.14", "2.5.29.37"
SERVER_AUTH, CLIENT_AUTH, ANY_PURPOSE = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "2.5.29.37.0"
EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"
MUST_STAPLE = "1.3.6.1.5.5.7.1.24"


def purposes(*oids: str) -> bytes:
    """An extendedKeyUsage."""
    return extension(PURPOSES, tlv(SEQUENCE, *map(oid, oids)))


def key_usage(bits: bytes) -> bytes:
    """A keyUsage of unused bits and bits."""
    return extension(KEY_USAGE, tlv(csrs.BITS, bits))


NAMES = alternative_names(WEB)
SIGNATURES = key_usage(b"\x07\x80")
SERVER = purposes(SERVER_AUTH)

HARMLESS_EXTENSIONS: Mapping[str, tuple[bytes, ...]] = MappingProxyType(
    {
        "usages": (SIGNATURES, SERVER),
        "usages the other way round": (SERVER, SIGNATURES),
        "critical usages": (
            extension(KEY_USAGE, tlv(csrs.BITS, b"\x07\x80"), critical=b"\xff"),
            purposes(CLIENT_AUTH, SERVER_AUTH),
        ),
        "purposes": (purposes(CLIENT_AUTH),),
        "no CA": (extension(BASIC, tlv(SEQUENCE)),),
        "key identifier": (extension(KEY_ID, tlv(csrs.OCTETS, bytes(20))),),
    }
)
HARMFUL_EXTENSIONS: Mapping[str, tuple[tuple[bytes, ...], str]] = MappingProxyType(
    {
        "key encipherment with ECDSA": ((key_usage(b"\x05\xa0"), SERVER), "asks for key usage key encipherment"),
        "another usage": ((key_usage(b"\x06\xc0"), SERVER), "asks for key usage content commitment"),
        "no usage": ((key_usage(b"\x00"), SERVER), "has keyUsage without any usage"),
        "key usage alone": ((SIGNATURES,), "has keyUsage without extendedKeyUsage"),
        "another purpose": ((purposes(SERVER_AUTH, EMAIL_PROTECTION),), f"extended key usage {EMAIL_PROTECTION}"),
        "any purpose": ((purposes(ANY_PURPOSE),), f"extended key usage {ANY_PURPOSE}"),
        "a purpose twice": ((purposes(SERVER_AUTH, SERVER_AUTH),), f"extended key usage {SERVER_AUTH} twice"),
        "no purpose": ((purposes(),), "not"),
        "must-staple": (
            (extension(MUST_STAPLE, tlv(SEQUENCE, tlv(csrs.INTEGER, b"\x05"))),),
            f"OCSP must-staple ({MUST_STAPLE})",
        ),
        "another feature": (
            (extension(MUST_STAPLE, tlv(SEQUENCE, tlv(csrs.INTEGER, b"\x11"))),),
            f"OCSP must-staple ({MUST_STAPLE})",
        ),
        "name constraints": (
            (extension("2.5.29.30", tlv(SEQUENCE, tlv(0xA0, tlv(SEQUENCE, tlv(csrs.DNS, b"a"))))),),
            "has extension 2.5.29.30",
        ),
        "certificate policies": (
            (extension("2.5.29.32", tlv(SEQUENCE, tlv(SEQUENCE, oid("2.5.29.32.0")))),),
            "has extension 2.5.29.32",
        ),
        "an unknown extension": ((extension("1.2.3.4", b"\x05\x00"),), "has extension 1.2.3.4"),
        "poison": ((extension("1.3.6.1.4.1.11129.2.4.3", b"\x05\x00", critical=b"\xff"),), "1.3.6.1.4.1.11129.2.4.3"),
    }
)
"""With the key of csrs.p256; each with a part of the violation."""

HARMLESS_ATTRIBUTES: Mapping[str, bytes] = MappingProxyType(
    {
        "a password": csrs.text_attribute(csrs.CHALLENGE_PASSWORD, b"secret"),
        "a name": csrs.text_attribute(csrs.UNSTRUCTURED_NAME, b"Example"),
        "two values": tlv(SEQUENCE, oid("1.2.3.5"), tlv(csrs.SET, tlv(UTF8, b"a"), tlv(UTF8, b"b"))),
    }
)

Attribute = tuple[str, int, bytes]
HARMLESS_SUBJECTS: Mapping[str, tuple[Attribute, ...]] = MappingProxyType(
    {
        "nothing": (),
        "common name": ((COMMON_NAME, UTF8, WEB.encode()),),
        "what the profile sets": ((ORGANIZATION, PRINTABLE, b"Example"),),
        "what the policy allows": ((LOCALITY, UTF8, "Zürich".encode()), (LOCALITY, PRINTABLE, b"Bern")),
    }
)
HARMFUL_SUBJECTS: Mapping[str, tuple[tuple[Attribute, ...], str]] = MappingProxyType(
    {
        "what the profile sets, otherwise": (((ORGANIZATION, UTF8, b"Evil"),), "organizations in the subject must be"),
        "what the profile sets, and more": (
            ((ORGANIZATION, UTF8, b"Example"), (ORGANIZATION, UTF8, b"Evil")),
            'exactly what the profile sets (spec.certificate.subject.organizations): "Example"',
        ),
        "without a rule": (((UNIT, UTF8, b"a"),), "it has no rules for it"),
        "unknown": ((("1.2.3.6", UTF8, b"a"),), "it has no rules for it"),
        "another type of text": (((LOCALITY, csrs.IA5, b"Bern"),), "neither UTF8String nor PrintableString"),
        "not text": (((LOCALITY, csrs.OCTETS, b"Bern"),), ""),
        "empty": (((LOCALITY, UTF8, b""),), "is empty"),
        "control characters": (((LOCALITY, UTF8, b"a\nb"),), "has control characters"),
        "too many": (((LOCALITY, UTF8, b"a"),) * 17, "more than 16 attributes"),
        "another common name": (((COMMON_NAME, UTF8, b"Jane Doe"),), "is not one of the names"),
        "name of the common name alone": (
            ((COMMON_NAME, UTF8, b"mail.example.com"),),
            'DNS name "mail.example.com" is in the common name of the certificate request only',
        ),
    }
)


@st.composite
def harmless(draw: st.DrawFn) -> bytes:
    """Requests that any CA may get, in DER."""
    chosen = draw(st.lists(st.sampled_from(sorted(HARMLESS_EXTENSIONS)), unique=True, max_size=4))
    extensions: dict[bytes, bytes] = {}
    for each in (names_ for key in chosen for names_ in HARMLESS_EXTENSIONS[key]):
        extensions.setdefault(oid_of(each), each)
    values = draw(st.lists(st.sampled_from(["mail.example.com", "*.example.com", "xn--mnchen-3ya.example.com"])))
    listed = draw(st.permutations([alternative_names(WEB, *values), *extensions.values()]))
    subject = draw(st.sampled_from(sorted(HARMLESS_SUBJECTS)))
    others = draw(st.sets(st.sampled_from(sorted(HARMLESS_ATTRIBUTES))))
    return built(*listed, subject=HARMLESS_SUBJECTS[subject], others=[HARMLESS_ATTRIBUTES[each] for each in others])


def oid_of(extension: bytes) -> bytes:
    """The object identifier in an extension, encoded."""
    return extension[4 : 4 + extension[3]]


def built(*extensions: bytes, subject: tuple[Attribute, ...] = (), others: list[bytes] | None = None) -> bytes:
    """A request in strict DER with these extensions, subject and other attributes."""
    attributes = csrs.in_order(csrs.requested(*extensions), *(others or ()))
    return csrs.sign(csrs.info(attributes, name=csrs.subject(*subject)))


def with_names(*values: str | tuple[int, bytes]) -> bytes:
    """A request with this subjectAltName."""
    return built(extension(SAN, names(*values)))
