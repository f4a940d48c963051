"""The names in certificates: DNS names and IP addresses, each in one canonical spelling.

Names are compared as values of this module: those of an order with those of a request, a name with a policy. So a name
with two spellings is refused, and so is one that some programs would read as an address.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, NamedTuple

import idna

from kms.pki.quoting import quoted

MAXIMUM_DNS_NAME = 253
"""Characters of a DNS name without the trailing dot (RFC 1035, 2.3.4, counted as text)."""
MAXIMUM_LABEL = 63

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Name(NamedTuple):
    """A DNS name (lowercase A-labels, maybe with `*.` in front) or an IP address (canonical text, RFC 8738)."""

    type: Literal["dns", "ip"]
    value: str

    @property
    def is_wildcard(self) -> bool:
        """Whether this is a DNS name that stands for all labels directly below its base."""
        return self.type == "dns" and self.value.startswith("*.")

    @property
    def base(self) -> str:
        """The value without the `*.` of a wildcard."""
        return self.value.removeprefix("*.")

    def __str__(self) -> str:
        """`DNS name "www.example.com"`, as messages want it."""
        if self.type == "ip":
            return f'IP address "{self.value}"'
        return f'wildcard DNS name "{self.value}"' if self.is_wildcard else f'DNS name "{self.value}"'


class InvalidName(ValueError):
    """Text that is not a valid name; the message is a sentence for people."""


def dns_name(text: str, *, wildcard: bool = True) -> Name:
    """The DNS name that `text` spells, in lowercase.

    Internationalised labels must be A-labels and valid under IDNA 2008. `*.` is accepted in front and nowhere
    else, and only where `wildcard` is set. Text that some program could read as an IP address is refused: dotted,
    octal, hexadecimal or single numbers, IPv6 text, a trailing dot.

    Raises InvalidName.
    """
    lowered = text.lower()
    base = lowered.removeprefix("*.") if wildcard else lowered
    if len(lowered) > MAXIMUM_DNS_NAME:
        raise InvalidName(f"{quoted(text)} is longer than the {MAXIMUM_DNS_NAME} characters of a DNS name.")
    if not text.isascii() or not _DNS_NAME.fullmatch(base):
        raise InvalidName(f"{quoted(text)} is not a DNS name: {_flaw(text, base, wildcard=wildcard)}.")
    labels = base.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise InvalidName(f"{quoted(text)} is not a DNS name: it ends in a number, as an IP address does.")
    if "xn--" in base:
        for label in labels:
            _check_a_label(label, last=label is labels[-1])
    return Name("dns", lowered)


def ip_address(text: str) -> Name:
    """The IP address that `text` spells in the canonical form that RFC 8738, section 3 asks for.

    IPv4 in dotted decimal; IPv6 as in RFC 5952. IPv4-mapped IPv6 addresses are refused: they would be a second
    spelling of an IPv4 address, past the rules for it.

    Raises InvalidName.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidName(f"{quoted(text)} is not an IP address.") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise InvalidName(f"{quoted(text)} has a zone; an address in a certificate has none.")
        if address.ipv4_mapped is not None:
            raise InvalidName(f'{quoted(text)} is an IPv4 address in IPv6 form; write "{address.ipv4_mapped}".')
    if str(address) != text:
        raise InvalidName(f'{quoted(text)} is not the canonical spelling of this IP address; write "{address}".')
    return Name("ip", text)


def common_name_of(text: str) -> Name | None:
    """The name that a common name spells; None if it spells none."""
    for reading in (dns_name, ip_address):
        try:
            return reading(text)
        except InvalidName:
            continue
    return None


def _check_a_label(label: str, *, last: bool) -> None:
    if not label.startswith("xn--"):
        return
    try:
        decoded = idna.ulabel(label)
        # ulabel has checked every character; idna.alabel would check them again.
        faithful = b"xn--" + decoded.encode("punycode") == label.encode()
    except UnicodeError:
        faithful = False
    if not faithful:
        raise InvalidName(f'"{label}" is not a valid internationalised label (IDNA 2008).')
    if last and decoded.isnumeric():
        raise InvalidName(f'"{label}" stands for a number; a DNS name does not end in one.')


def _flaw(text: str, base: str, *, wildcard: bool) -> str:
    """Why a text is not a DNS name: the most obvious reason."""
    labels = base.split(".")
    misplaced = '"*" may stand only in front, as "*."' if wildcard else "it must not be a wildcard"
    flaws = (
        (not text, "it is empty"),
        (not text.isascii(), "internationalised labels must be written as A-labels (xn--...)"),
        (text.endswith("."), "it ends in a dot"),
        ("*" in base, misplaced),
        ("" in labels, "it has an empty label"),
        (any(len(each) > MAXIMUM_LABEL for each in labels), f"a label is longer than {MAXIMUM_LABEL} characters"),
        (any(each.startswith("-") or each.endswith("-") for each in labels), 'a label begins or ends with "-"'),
    )
    otherwise = 'it has characters other than letters, digits, "-" and "."'
    return next((message for applies, message in flaws if applies), otherwise)
