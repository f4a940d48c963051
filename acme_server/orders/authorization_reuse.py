"""What proves the names of a new order before anybody solves a challenge, and whether that still holds.

Earlier authorizations of the account do, for as long as the profile's authorizationLifetime says; and where the profile
skips the validation of ownership, the account's EAB credential does. Both become `spec.authorized` of the order, so the
order is ready with the one write that creates it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

from acme_server.orders.identifiers import identifier_of
from acme_server.orders.lifetimes import is_over
from acme_server.orders.policy import challenges_for
from acme_server.profiles import Profile
from acme_server.state.authorizations import Holder, ProvenAuthorization, own_authorization
from kms.pki.names import Name
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ACMEOrder, AuthorizationState, Authorized, ChallengeType


def is_trusted(profile: Profile, account: ACMEAccount) -> bool:
    """Whether the account's credential is proof enough (ownershipValidation: Skipped).

    An account without one proves its names like everywhere else, also where it was opened before the profile asked
    for bindings.
    """
    return not profile.acme.validates_ownership and account.spec.external_account is not None


def trusted(
    names: Sequence[Name], types: Iterable[ChallengeType], *, now: datetime, expires: datetime
) -> tuple[Authorized, ...]:
    """All names, on the word of the credential. They show the first challenge that would have been asked for."""
    offered = tuple(types)
    return tuple(
        Authorized(
            authorization=position,
            type=next(iter(challenges_for(name, offered)), None),
            validated=now,
            expires=expires,
        )
        for position, name in enumerate(names)
    )


def reused(
    names: Sequence[Name],
    types: Collection[ChallengeType],
    find: Callable[[Holder], ProvenAuthorization | None],
    profile: Profile,
    account: ACMEAccount,
    *,
    now: datetime,
) -> tuple[Authorized, ...]:
    """Those names that the account has proven within the authorizationLifetime, by a challenge that is still offered.

    A wildcard and its base name are proven apart from each other.
    """
    found = []
    for position, name in enumerate(names):
        proof = find(Holder(profile.namespace, account.metadata.name, identifier_of(name)))
        if (
            proof is not None
            and now < proof.validated + profile.authorization_lifetime
            and proof.type in challenges_for(name, types)
        ):
            found.append(
                Authorized(
                    authorization=position,
                    order=proof.order,
                    position=proof.position,
                    type=proof.type,
                    validated=proof.validated,
                    expires=proof.expires,
                )
            )
    return tuple(found)


def standing(
    order: ACMEOrder, relied_on: Authorized, original: ACMEOrder | None, *, now: datetime
) -> AuthorizationState:
    """How the authorization that the order relies on stands, given the order it was made for; None: that is gone.

    What an order says about itself is not enough: the other one must be of the same account and profile, and have
    proven the same identifier itself.
    """
    if original is None or relied_on.position is None:
        return "revoked"
    authorization = own_authorization(original, relied_on.position)
    if (
        authorization is None
        or original.spec.account_ref != order.spec.account_ref
        or original.spec.profile_ref != order.spec.profile_ref
        or original.spec.identifiers[relied_on.position] != order.spec.identifiers[relied_on.authorization]
        or authorization.state in {"pending", "invalid"}
    ):
        return "revoked"
    if authorization.state == "valid" and is_over(authorization.expires, now=now):
        return "expired"
    return authorization.state
