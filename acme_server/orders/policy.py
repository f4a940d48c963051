"""The policy of the profile, applied to an order and again to its certificate request.

The rules are in kms.pki.policy; this module turns their violations into refusals.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from acme_server.model import OrderProfile, Profile
from acme_server.orders.identifiers import identifier_of, names_of, refusal
from acme_server.problems import ProblemType, Refused, SubProblem
from kms.address import IPAddress
from kms.pki.constraints import constraint_violations
from kms.pki.csr import CertificateRequest, InvalidRequest, parse_request
from kms.pki.names import Name
from kms.pki.policy import Narrowing, Violation, name_violations, request_violations
from kms.pki.subject_policy import common_name_violations
from kms.resources.orders import ACMEOrder, ChallengeType, challenge_types

Objection = Callable[[IPAddress], str | None]
"""Why an address must not be contacted or certified ("loopback"); None: it may."""

_SHOWN = 5
"""How many names or violations a detail lists."""


def no_objection(_: IPAddress) -> None:
    """Allow every address."""


def admit_choice(
    names: Sequence[Name],
    chosen: OrderProfile,
    directory: Profile,
    *,
    narrowing: Narrowing | None,
    granted: Narrowing | None,
    types: tuple[ChallengeType, ...] | None,
    objection: Objection,
) -> None:
    """Check an order's names against the profile that was chosen for it in the directory; see admit_names.

    Raises Refused (invalidProfile) if the names fit the directory but not the profile that the client requested: it
    should choose another one.
    """
    try:
        admit_names(names, chosen.profile, narrowing, types, objection, granted=granted)
    except Refused as refused:
        if chosen.contents is None or not _fits(names, directory):
            raise
        raise Refused(
            ProblemType.INVALID_PROFILE,
            f'Profile "{chosen.name}" is not for these identifiers: {refused.detail}',
            subproblems=refused.subproblems,
        ) from refused


def _fits(names: Sequence[Name], profile: Profile) -> bool:
    return not name_violations(names, profile.policy, None) and not constraint_violations(names, profile.constraints)


def admit_names(
    names: Sequence[Name],
    profile: Profile,
    narrowing: Narrowing | None,
    types: tuple[ChallengeType, ...] | None,
    objection: Objection = no_objection,
    *,
    granted: Narrowing | None = None,
) -> None:
    """Check the names of an order, so that no client proves control of a name that cannot be certified.

    `narrowing` is that of the account's credential, `granted` the names that the profile gives the namespace of its
    clients. `types` are the challenges that are offered; None: names need no proof. Raises Refused
    (rejectedIdentifier) with a subproblem for each name that

    * the policy refuses; the subproblem names the rule and the policy;
    * cannot be the common name that the policy requires, if no other can;
    * the nameConstraints of the CA exclude, because clients would refuse the certificate;
    * is an address with an `objection`;
    * no offered challenge can prove.
    """
    violations = [
        *name_violations(names, profile.policy, narrowing, granted),
        *constraint_violations(names, profile.constraints),
        *map(Violation, common_name_violations(names, profile.policy.subject, profile.policy.name)),
        *_objectionable(names, objection),
        *(() if types is None else _unprovable(names, profile, types)),
    ]
    if violations:
        raise _refused_names(violations)


def challenges_for(name: Name, types: tuple[ChallengeType, ...]) -> tuple[ChallengeType, ...]:
    """The types that can prove control of the name: for a wildcard only dns-01, for an address all but dns-01."""
    return challenge_types(identifier_of(name), types)


def _objectionable(names: Iterable[Name], objection: Objection) -> Iterable[Violation]:
    for name in names:
        if name.type == "ip" and (why := objection(ipaddress.ip_address(name.value))) is not None:
            yield Violation(f"{name} is not certified by this server: it is {why}", name)


def _unprovable(names: Iterable[Name], profile: Profile, types: tuple[ChallengeType, ...]) -> Iterable[Violation]:
    for name in names:
        if not challenges_for(name, types):
            offered = ", ".join(types) or "none"
            message = (
                f"control of {name} cannot be proven with the challenges that profile "
                f"{profile.namespace}/{profile.name} offers ({offered})"
            )
            yield Violation(message, name)


def _refused_names(violations: Sequence[Violation]) -> Refused:
    type_ = ProblemType.REJECTED_IDENTIFIER
    named = [SubProblem(type_, each.message, identifier_of(each.name)) for each in violations if each.name is not None]
    general = [each.message for each in violations if each.name is None]
    if not general:
        return refusal(named, type_=type_)
    return Refused(type_, _sentence(general), subproblems=tuple(named))


def _sentence(messages: Sequence[str]) -> str:
    more = f"; and {len(messages) - _SHOWN} more" if len(messages) > _SHOWN else ""
    return "; ".join(messages[:_SHOWN]) + more + "."


def parse_csr(der: bytes) -> CertificateRequest:
    """The certificate request, its own signature verified; raises Refused (badCSR)."""
    try:
        return parse_request(der)
    except InvalidRequest as error:
        raise Refused(ProblemType.BAD_CSR, str(error)) from error


def admit_request(
    request: CertificateRequest,
    order: ACMEOrder,
    profile: Profile,
    narrowing: Narrowing | None,
    granted: Narrowing | None = None,
) -> None:
    """Check the request against its order and, once more, against the policy and what narrows it.

    Raises Refused (badCSR) that says which names differ or which rule was met.
    """
    ordered = frozenset(names_of(order.spec.identifiers))
    if request.names != ordered:
        raise Refused(ProblemType.BAD_CSR, _difference(ordered, request.names))
    violations = (
        *request_violations(request, profile.policy, narrowing, granted),
        *constraint_violations(sorted(request.names), profile.constraints),
    )
    if violations:
        raise Refused(
            ProblemType.BAD_CSR,
            _sentence([each.message for each in violations]),
            subproblems=tuple(
                SubProblem(ProblemType.BAD_CSR, each.message, identifier_of(each.name))
                for each in violations
                if each.name is not None
            ),
        )


def _difference(ordered: frozenset[Name], requested: frozenset[Name]) -> str:
    parts = []
    if missing := ordered - requested:
        parts.append(f"lacks {_join(missing)}")
    if extra := requested - ordered:
        parts.append(f"names {_join(extra)}, not in the order")
    return f"The names of the certificate request are not those of the order: it {' and '.join(parts)}."


def _join(names: Iterable[Name]) -> str:
    values = sorted(each.value for each in names)
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more
