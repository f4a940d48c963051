"""The value of an identifier: a DNS name or an IP address in canonical form (RFC 5280, RFC 8738)."""

from __future__ import annotations

from collections.abc import Callable

from fuzz.target import Target
from kms.pki.names import InvalidName, Name, common_name_of, dns_name, ip_address


def read(data: bytes) -> None:
    """Parse as both; an accepted value must be canonical, and never a name and an address at once."""
    text = data.decode("utf-8", "replace")
    taken = [name for name in (_read(dns_name, text), _read(ip_address, text), common_name_of(text)) if name]
    for name in taken:
        again = dns_name(name.value) if name.type == "dns" else ip_address(name.value)
        if again != name or len({each.type for each in taken}) != 1:
            raise AssertionError(f"{name} is both a name and an address")


def _read(parse: Callable[[str], Name], text: str) -> Name | None:
    try:
        return parse(text)
    except InvalidName as error:
        if not str(error).isprintable():
            raise AssertionError("the message has more than one line") from error
        return None


TARGET = Target(read, (), longest=4096)
