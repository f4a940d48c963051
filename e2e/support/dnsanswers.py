"""What the test DNS server (dns.py) may answer to a query."""

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
    """What happens to a query."""

    @property
    def delay(self) -> float:
        """Seconds before anything is sent."""
        ...

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Complete the response; False: nothing is sent at all."""
        ...


@dataclass(frozen=True, slots=True, init=False)
class Addresses:
    """The addresses of a name: IPv4 as A, IPv6 as AAAA. For other types the name exists and has no data."""

    addresses: tuple[str, ...]
    delay: float

    def __init__(self, *addresses: str, delay: float = 0.0) -> None:
        object.__setattr__(self, "addresses", tuple(str(ipaddress.ip_address(each)) for each in addresses))
        object.__setattr__(self, "delay", delay)

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Add those of the version that was asked for."""
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
        chosen = [each for each in self.addresses if ipaddress.ip_address(each).version == version]
        if chosen:
            response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", question.rdtype, *chosen))
        return True


@dataclass(frozen=True, slots=True)
class Alias:
    """A CNAME. The target is not followed here."""

    target: str
    delay: float = 0.0

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Add the CNAME, whatever type was asked for."""
        target = dns.name.from_text(self.target).to_text()
        response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", "CNAME", target))
        return True


@dataclass(frozen=True, slots=True, init=False)
class Records:
    """Records of one type, each as in a zone file. For other types the name exists and has no data."""

    type: str
    records: tuple[str, ...]
    delay: float

    def __init__(self, rdtype: str, *records: str, delay: float = 0.0) -> None:
        object.__setattr__(self, "type", rdtype)
        object.__setattr__(self, "records", records)
        object.__setattr__(self, "delay", delay)

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Add those, if their type was asked for."""
        if self.records and question.rdtype == dns.rdatatype.from_text(self.type):
            response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", self.type, *self.records))
        return True


@dataclass(frozen=True, slots=True, init=False)
class Several:
    """All that several answers hold: addresses beside CAA, for one. A code or an alias goes with nothing else."""

    answers: tuple[Answer, ...]

    def __init__(self, *answers: Answer) -> None:
        object.__setattr__(self, "answers", answers)

    @property
    def delay(self) -> float:
        """Seconds before anything is sent: the longest."""
        return max((each.delay for each in self.answers), default=0.0)

    def fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        """Add what each of them has for the question; False as soon as one wants nothing to be sent."""
        return all(each.fill(response, question) for each in self.answers)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error code: "NXDOMAIN", "SERVFAIL", "REFUSED"..."""

    code: str
    delay: float = 0.0

    def fill(self, response: dns.message.Message, _question: dns.rrset.RRset) -> bool:
        """Set the code."""
        response.set_rcode(dns.rcode.from_text(self.code))
        return True


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer, so that the client runs into its time limit."""

    delay: float = 0.0

    def fill(self, _response: dns.message.Message, _question: dns.rrset.RRset) -> bool:
        """Send nothing."""
        return False
