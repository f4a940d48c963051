"""Name constraints: the names that a chain of CAs may certify (RFC 5280, 4.2.1.10).

Clients reject certificates that violate the nameConstraints of a CA above them. So none is issued, and no client solves
challenges for one. The root's own constraints count too: OpenSSL and Go apply them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509

from kms.address import Network
from kms.pki.names import Name
from kms.pki.policy import Violation
from kms.pki.quoting import quoted

_RULE = "nameConstraints of the CA"


@dataclass(frozen=True, slots=True)
class Subtrees:
    """DNS subtrees, in lowercase, and networks. A domain with a dot in front is not part of its own subtree."""

    domains: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Constraints:
    """The name constraints of one CA certificate, whose subject is `holder`.

    Without permitted subtrees of a type, names of that type are not restricted.
    """

    holder: str
    permitted: Subtrees
    excluded: Subtrees


def constraints_of(chain: str) -> tuple[Constraints, ...]:
    """The name constraints in a chain of CA certificates in PEM. Raises ValueError if it cannot be read."""
    return tuple(filter(None, map(_of_certificate, x509.load_pem_x509_certificates(chain.encode()))))


def constraint_violations(names: Iterable[Name], constraints: Sequence[Constraints]) -> tuple[Violation, ...]:
    """How these names violate the constraints of the CAs: at most one violation for each name."""
    objections = ((name, next(_objections(name, constraints), None)) for name in names)
    return tuple(Violation(objection, name) for name, objection in objections if objection is not None)


def _of_certificate(certificate: x509.Certificate) -> Constraints | None:
    try:
        value = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None
    return Constraints(
        holder=quoted(certificate.subject.rfc4514_string()),
        permitted=_subtrees(value.permitted_subtrees or ()),
        excluded=_subtrees(value.excluded_subtrees or ()),
    )


def _subtrees(names: Iterable[x509.GeneralName]) -> Subtrees:
    names = tuple(names)
    return Subtrees(
        domains=tuple(each.value.lower() for each in names if isinstance(each, x509.DNSName)),
        networks=tuple(
            each.value
            for each in names
            if isinstance(each, x509.IPAddress)
            and isinstance(each.value, ipaddress.IPv4Network | ipaddress.IPv6Network)
        ),
    )


def _objections(name: Name, constraints: Iterable[Constraints]) -> Iterator[str]:
    meets = _meeting_domains if name.type == "dns" else _meeting_networks
    for each in constraints:
        if met := meets(name, each.excluded):
            yield f"{name} is excluded by the {_RULE} {each.holder}: it is within {met[0]}"
        permitted = each.permitted.domains if name.type == "dns" else each.permitted.networks
        if permitted and not meets(name, each.permitted):
            yield f"{name} is not permitted by the {_RULE} {each.holder}: {', '.join(map(str, permitted))}"


def _meeting_domains(name: Name, subtrees: Subtrees) -> list[str]:
    return [each for each in subtrees.domains if _is_within(name.value, each)]


def _meeting_networks(name: Name, subtrees: Subtrees) -> list[str]:
    address = ipaddress.ip_address(name.value)
    return [str(each) for each in subtrees.networks if address in each]


def _is_within(value: str, domain: str) -> bool:
    """Whether the name is the domain or below it; every name is below the empty domain."""
    return not domain or value == domain or value.endswith(domain if domain.startswith(".") else f".{domain}")
