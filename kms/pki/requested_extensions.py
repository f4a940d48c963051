"""The extensions of certificate requests that are read (RFC 5280, 4.2.1): names, usages, and whether it is for a CA."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from kms.pki.der import BIT_STRING, BOOLEAN, OBJECT_IDENTIFIER, SEQUENCE, MalformedDER, Reader, dotted

SUBJECT_ALTERNATIVE_NAME: Final = "2.5.29.17"
BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
EXTENDED_KEY_USAGE: Final = "2.5.29.37"
SUBJECT_KEY_IDENTIFIER: Final = "2.5.29.14"
NO_NAMES: Final = b"\x30\x00"
"""The value of a subjectAltName without names."""

MAXIMUM_ALTERNATIVE_NAMES: Final = 1_000
"""Names in subjectAltName: ten times what an order may have, since some clients repeat them."""

_NAME_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0x82: "dns",
        0x87: "ip",
        0xA0: "an otherName",
        0x81: "an email address",
        0xA3: "an X.400 address",
        0xA4: "a directory name",
        0xA5: "an EDI party name",
        0x86: "a URI",
        0x88: "a registered ID",
    }
)
"""The choices of GeneralName (RFC 5280, 4.2.1.6) by tag: the types that we certify, and words for the others."""
_BITS: Final = (
    "digital signature",
    "content commitment",
    "key encipherment",
    "data encipherment",
    "key agreement",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
)
"""The bits of keyUsage (RFC 5280, 4.2.1.3), by the names of certificates.k8s.io."""
USAGES_OF_A_CA: Final = frozenset({"cert sign", "crl sign"})


class AlternativeName(NamedTuple):
    """One name of subjectAltName: of type `dns`, `ip`, or another type in words."""

    type: str
    content: bytes


def alternative_names(value: bytes) -> tuple[AlternativeName, ...]:
    """The names in the value of subjectAltName, each once. Raises MalformedDER."""
    outermost = Reader(value, "subjectAltName")
    names = outermost.enter(SEQUENCE, "subjectAltName")
    outermost.finish()
    found: list[AlternativeName] = []
    while names.more():
        if len(found) == MAXIMUM_ALTERNATIVE_NAMES:
            raise MalformedDER(f"subjectAltName has more than {MAXIMUM_ALTERNATIVE_NAMES} names")
        name = names.expect(None, "a name of subjectAltName")
        type_ = _NAME_TYPES.get(name.tag, f"a name of tag 0x{name.tag:02x}")
        found.append(AlternativeName(type_, names.content(name)))
    return tuple(dict.fromkeys(found))


def is_for_ca(value: bytes) -> bool:
    """Whether the value of basicConstraints says that the key is that of a CA. Raises MalformedDER."""
    outermost = Reader(value, "the value of basicConstraints")
    constraints = outermost.enter(SEQUENCE, "the value of basicConstraints")
    flag = constraints.expect_if(BOOLEAN, "cA of basicConstraints")
    return flag is not None and any(constraints.content(flag))


def key_usages(value: bytes) -> tuple[str, ...]:
    """The usages in the value of keyUsage. Raises MalformedDER."""
    outermost = Reader(value, "the value of keyUsage")
    bits = outermost.content(outermost.expect(BIT_STRING, "the value of keyUsage"))
    octets = bits[1:3]
    return tuple(
        usage
        for position, usage in enumerate(_BITS)
        if position // 8 < len(octets) and octets[position // 8] & 0x80 >> position % 8
    )


def extended_key_usages(value: bytes) -> tuple[str, ...]:
    """The object identifiers in the value of extKeyUsage. Raises MalformedDER."""
    outermost = Reader(value, "the value of extKeyUsage")
    purposes = outermost.enter(SEQUENCE, "the value of extKeyUsage")
    found = []
    while purposes.more():
        purpose = purposes.expect(OBJECT_IDENTIFIER, "a purpose of extKeyUsage")
        found.append(dotted(purposes.content(purpose), "a purpose of extKeyUsage"))
    return tuple(found)
