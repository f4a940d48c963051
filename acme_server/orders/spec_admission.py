"""What the spec of an order claims, checked against the configuration before a certificate is made. Pure.

newOrder has checked all of this for the orders that it creates. But users who may create ACMEOrders can write any spec,
and then request the certificate with an account of theirs.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime

from acme_server.model import Profile
from acme_server.orders.identifiers import refusal
from acme_server.orders.lifetimes import is_over, require_plausible_start
from acme_server.orders.policy import Objection
from acme_server.orders.transitions import require_unchanged
from acme_server.problems import ProblemType, Refused, SubProblem
from kms.resources.durations import format_duration
from kms.resources.orders import ACMEOrder, challenge_types


def admit_spec(
    order: ACMEOrder, profile: Profile, *, client_namespace: str | None, objection: Objection, now: datetime
) -> None:
    """Check what the spec claims, except names and order profile: policy.admit_request and Profiles.of_order do that.

    `profile` is the directory's; `client_namespace` is the namespace of the account's clients, None without a
    credential; `now` is when the CSR is or was accepted. Raises Refused: orderNotReady for an order that is older than
    the profile allows, whose spec was changed, for clients of another namespace, or proven by a challenge that the
    profile does not offer; malformed for dates that newOrder refuses and for repeated names; rejectedIdentifier for
    addresses with an `objection`.
    """
    require_unchanged(order)
    _admit_age(order, profile, now=now)
    _admit_clients(order, client_namespace)
    _admit_identifiers(order, objection)
    _admit_proofs(order, profile)
    require_plausible_start(order, profile, created=order.metadata.creation_timestamp or now)


def _admit_age(order: ACMEOrder, profile: Profile, *, now: datetime) -> None:
    created = order.metadata.creation_timestamp or now
    if is_over(created + profile.order_lifetime, now=now):
        raise Refused(
            ProblemType.ORDER_NOT_READY,
            f"The order is older than {format_duration(profile.order_lifetime)}, the orderLifetime of its profile.",
        )


def _admit_clients(order: ACMEOrder, client_namespace: str | None) -> None:
    # Orders of an earlier release tell no namespace.
    if order.spec.client_namespace not in {None, client_namespace}:
        raise Refused(
            ProblemType.ORDER_NOT_READY,
            f"The order is for clients of namespace {order.spec.client_namespace}; the account's are of another one.",
        )


def _admit_identifiers(order: ACMEOrder, objection: Objection) -> None:
    identifiers = order.spec.identifiers
    if len(set(identifiers)) < len(identifiers):
        raise Refused(ProblemType.MALFORMED, "The order has the same identifier twice.")
    problems = []
    for each in identifiers:
        if each.type == "ip" and (why := objection(ipaddress.ip_address(each.value))) is not None:
            detail = f"{each.value} is not certified by this server: it is {why}."
            problems.append(SubProblem(ProblemType.REJECTED_IDENTIFIER, detail, each))
    if problems:
        raise refusal(problems)


def _admit_proofs(order: ACMEOrder, profile: Profile) -> None:
    """Check by which challenges the order's own authorizations were proven; those of earlier orders are not its own."""
    before = {each.authorization for each in order.spec.authorized}
    authorizations = zip(order.spec.identifiers, order.status.authorizations, strict=False)
    for position, (identifier, authorization) in enumerate(authorizations):
        if position in before:
            continue
        if all(each.state != "valid" for each in authorization.challenges):
            raise Refused(ProblemType.ORDER_NOT_READY, f"{identifier.value} was proven by no challenge.")
        accepted = challenge_types(identifier, profile.acme.challenges)
        for challenge in authorization.challenges:
            if challenge.state == "valid" and challenge.type not in accepted:
                raise Refused(
                    ProblemType.ORDER_NOT_READY,
                    f"{identifier.value} was proven by {challenge.type}, and profile {profile.namespace}/{profile.name}"
                    f" accepts {', '.join(accepted) or 'no challenge'} for it.",
                )
