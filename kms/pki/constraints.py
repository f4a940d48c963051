"""Name constraints: the names that a chain of CAs may certify (RFC 5280, 4.2.1.10).

Clients reject certificates that violate the nameConstraints of a CA above them. So none is issued, and no client solves
challenges for one. The root's own constraints count too: OpenSSL and Go apply them.

A wildcard stands for all names directly below its base. OpenSSL and older versions of Go compare its text only: below a
CA that excludes secret.example.com they accept a certificate for *.example.com, and take it for secret.example.com.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from kms.address import Network
from kms.pki.extensions import find_extension
from kms.pki.names import Name
from kms.pki.pattern_sets import NO_NETWORKS, NetworkSet, Value
from kms.pki.policy import Violation
from kms.pki.quoting import quoted

_RULE = "nameConstraints of"
_SHOWN = 5
"""Subtrees that a message lists."""


class Domains:
    """DNS subtrees. A domain with a dot in front is not part of its own subtree; the empty one is the whole tree.

    A chain may have thousands of them, so they are found by the ends of a name.
    """

    def __init__(self, domains: Iterable[str] = ()) -> None:
        self._domains = tuple(each.lower() for each in domains)
        self._themselves = {each: each for each in self._domains if not each.startswith(".")}
        self._above = {each.removeprefix("."): each for each in self._domains}
        self._children = {each.partition(".")[2]: each for each in self._themselves if "." in each}

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def find_whole(self, name: Name) -> str | None:
        """A domain that the whole name is within: of a wildcard, every name that it stands for."""
        if "" in self._themselves:
            return "the whole tree"
        ends = Value.of(name.value).ends
        found = self._themselves.get(name.value)
        return found or next((self._above[each] for each in ends[1:] if each is not None and each in self._above), None)

    def find_part(self, name: Name) -> str | None:
        """A domain that the name is within, or one of the names that a wildcard stands for."""
        return self.find_whole(name) or (self._children.get(name.base) if name.is_wildcard else None)


@dataclass(frozen=True, slots=True)
class Subtrees:
    """Domains and networks."""

    domains: Domains = field(default_factory=Domains)
    networks: NetworkSet = NO_NETWORKS


@dataclass(frozen=True, slots=True)
class Constraints:
    """The name constraints of one CA certificate, which `holder` names: `the CA "CN=Example Root"`.

    Without permitted subtrees of a type, names of that type are not restricted.
    """

    holder: str
    permitted: Subtrees
    excluded: Subtrees


def constraints_of(chain: str, *, authority: str = "") -> tuple[Constraints, ...]:
    """The name constraints in a chain of CA certificates in PEM. Raises ValueError if it cannot be read.

    Messages name the `authority` whose chain it is, such as `CertificateAuthority pki/issuing`.
    """
    certificates = x509.load_pem_x509_certificates(chain.encode())
    holders = (_holder(each, authority, first=number == 0) for number, each in enumerate(certificates))
    return tuple(filter(None, map(_of_certificate, certificates, holders)))


def _holder(certificate: x509.Certificate, authority: str, *, first: bool) -> str:
    subject = quoted(certificate.subject.rfc4514_string())
    if authority and first:
        return f"{authority} ({subject})"
    return f"the CA {subject} above {authority}" if authority else f"the CA {subject}"


def constraint_violations(names: Iterable[Name], constraints: Sequence[Constraints]) -> tuple[Violation, ...]:
    """How these names violate the constraints of the CAs: at most one violation for each name."""
    objections = ((name, next(_objections(name, constraints), None)) for name in names)
    return tuple(Violation(objection, name) for name, objection in objections if objection is not None)


def _of_certificate(certificate: x509.Certificate, holder: str) -> Constraints | None:
    value = find_extension(certificate, x509.NameConstraints)
    if value is None:
        return None
    return Constraints(
        holder=holder,
        permitted=_subtrees(value.permitted_subtrees or ()),
        excluded=_subtrees(value.excluded_subtrees or ()),
    )


def _subtrees(names: Iterable[x509.GeneralName]) -> Subtrees:
    names = tuple(names)
    return Subtrees(
        domains=Domains(each.value for each in names if isinstance(each, x509.DNSName)),
        networks=NetworkSet(
            each.value
            for each in names
            if isinstance(each, x509.IPAddress)
            and isinstance(each.value, ipaddress.IPv4Network | ipaddress.IPv6Network)
        ),
    )


def _objections(name: Name, constraints: Iterable[Constraints]) -> Iterator[str]:
    address = ipaddress.ip_address(name.value) if name.type == "ip" else None
    for each in constraints:
        permitted: Domains | NetworkSet
        inside: str | Network | None
        excluded: str | Network | None
        if address is None:
            permitted = each.permitted.domains
            inside, excluded = each.permitted.domains.find_whole(name), each.excluded.domains.find_part(name)
        else:
            permitted = each.permitted.networks
            inside, excluded = each.permitted.networks.find(address), each.excluded.networks.find(address)
        if excluded is not None:
            how = "it covers names in" if name.is_wildcard else "it is within"
            yield f"{name} is excluded by the {_RULE} {each.holder}: {how} {excluded}"
        if len(permitted) and inside is None:
            yield f"{name} is not permitted by the {_RULE} {each.holder}: {_list(permitted)}"


def _list(subtrees: Iterable[str | Network]) -> str:
    texts = [str(each) for each in subtrees]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
