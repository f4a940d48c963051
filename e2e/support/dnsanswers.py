"""The answers of the test DNS server (dns.py)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Protocol

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

_TTL = 0


class Answer(Protocol):
    """The answer to a query."""

    @property
    def delay(self) -> float:
        """Delay in seconds."""
        ...

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Complete the response. Returns False to send nothing."""
        ...


@dataclass(frozen=True, slots=True, init=False)
class Addresses:
    """The addresses of a name: IPv4 as A, IPv6 as AAAA, no data for other types."""

    addresses: tuple[str, ...]
    delay: float

    def __init__(self, *addresses: str, delay: float = 0.0) -> None:
        object.__setattr__(self, "addresses", tuple(str(ipaddress.ip_address(each)) for each in addresses))
        object.__setattr__(self, "delay", delay)

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Add the addresses of the queried type."""
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
        chosen = [each for each in self.addresses if ipaddress.ip_address(each).version == version]
        if chosen:
            response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", question.rdtype, *chosen))
        return True


@dataclass(frozen=True, slots=True)
class Alias:
    """A CNAME, whose target is not followed."""

    target: str
    delay: float = 0.0

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Add the CNAME for any type."""
        target = dns.name.from_text(self.target).to_text()
        response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", "CNAME", target))
        return True


@dataclass(frozen=True, slots=True, init=False)
class Records:
    """Records of one type in zone file format, no data for other types."""

    type: str
    records: tuple[str, ...]
    delay: float

    def __init__(self, rdtype: str, *records: str, delay: float = 0.0) -> None:
        object.__setattr__(self, "type", rdtype)
        object.__setattr__(self, "records", records)
        object.__setattr__(self, "delay", delay)

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Add the records, if their type is queried."""
        if self.records and question.rdtype == dns.rdatatype.from_text(self.type):
            response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", self.type, *self.records))
        return True


@dataclass(frozen=True, slots=True, init=False)
class Several:
    """Several answers combined, such as addresses and CAA. Failure and Alias cannot be combined."""

    answers: tuple[Answer, ...]

    def __init__(self, *answers: Answer) -> None:
        object.__setattr__(self, "answers", answers)

    @property
    def delay(self) -> float:
        """The longest delay in seconds."""
        return max((each.delay for each in self.answers), default=0.0)

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Fill in each answer. Returns False if one of them sends nothing."""
        return all(each.fill(response, question) for each in self.answers)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error code, such as "NXDOMAIN", "SERVFAIL" or "REFUSED"."""

    code: str
    delay: float = 0.0

    def fill(self, response: dns.message.Message, _question: dns.rrset.RRset) -> bool:
        """Set the code."""
        response.set_rcode(dns.rcode.from_text(self.code))
        return True


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer, so that the client times out."""

    delay: float = 0.0

    def fill(self, _response: dns.message.Message, _question: dns.rrset.RRset) -> bool:
        """Send nothing."""
        return False
