"""Converts ACME identifiers to names and back (RFC 8555, 9.7.7; RFC 8738)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from acme_server.model import RequestedIdentifier
from acme_server.problems import ProblemType, Refused, SubProblem
from kms.pki.names import InvalidName, Name, dns_name, ip_address
from kms.resources.orders import Identifier

_SHOWN = 64
_TOLD = 3
"""Problems that the detail of a refusal repeats; the subproblems contain all."""


def normalise(identifiers: Sequence[RequestedIdentifier]) -> tuple[Name, ...]:
    """The names of the identifiers, without duplicates, in the order of the request.

    DNS names are lowercase A-labels, addresses spelled as RFC 8738 wants them. Raises Refused with one
    subproblem for each identifier that cannot be served: another type, a value of type dns that is not a DNS
    name, such as an IP address in any spelling, and one of type ip that is not an address.
    """
    names: list[Name] = []
    problems: list[SubProblem] = []
    for each in identifiers:
        try:
            names.append(_name(each))
        except Refused as refused:
            problems.append(SubProblem(refused.type, refused.detail, _echo(each)))
    if problems:
        raise refusal(problems)
    return tuple(dict.fromkeys(names))


def _name(identifier: RequestedIdentifier) -> Name:
    try:
        match identifier.type:
            case "dns":
                return dns_name(identifier.value)
            case "ip":
                return ip_address(identifier.value)
            case _:
                raise Refused(
                    ProblemType.UNSUPPORTED_IDENTIFIER,
                    f"Identifiers of type {identifier.type[:_SHOWN]!r} are not supported here; use type dns or ip.",
                )
    except InvalidName as error:
        raise Refused(ProblemType.MALFORMED, str(error)) from error


def _echo(identifier: RequestedIdentifier) -> Identifier | None:
    """The identifier for a subproblem; None for an unknown type."""
    match identifier.type:
        case "dns" | "ip" as known:
            return Identifier(type=known, value=identifier.value[:255])
        case _:
            return None


def refusal(problems: Sequence[SubProblem], *, type_: ProblemType | None = None) -> Refused:
    """One refusal for what is wrong with several identifiers (RFC 8555, 6.7.1).

    Of the type that all share, else rejectedIdentifier; the detail of a single problem is the detail of the whole.
    """
    types = {each.type for each in problems}
    chosen = type_ or (types.pop() if len(types) == 1 else ProblemType.REJECTED_IDENTIFIER)
    if len(problems) == 1:
        return Refused(chosen, problems[0].detail, subproblems=tuple(problems))
    details = "; ".join(each.detail.rstrip(".") for each in problems[:_TOLD])
    more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
    return Refused(chosen, f"The identifiers are refused: {details}{more}.", subproblems=tuple(problems))


def identifier_of(name: Name) -> Identifier:
    """The identifier of the name."""
    return Identifier(type=name.type, value=name.value)


def name_of(identifier: Identifier) -> Name:
    """The name of a stored identifier, which was normalised before."""
    return Name(identifier.type, identifier.value)


def names_of(identifiers: Iterable[Identifier]) -> tuple[Name, ...]:
    """The names of stored identifiers."""
    return tuple(name_of(each) for each in identifiers)
