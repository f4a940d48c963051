"""Names that need no new challenge (`spec.authorized` of an order), and whether that is still so.

A new order reuses valid authorizations of its account, within the profile's authorizationLifetime. Where the profile
skips the validation of ownership, the EAB credential of the account is enough. Both kinds of orders are ready at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.model import Caller, Profile
from acme_server.orders.identifiers import identifier_of, name_of
from acme_server.orders.lifetimes import is_over, proof_ends
from acme_server.orders.policy import challenges_for
from acme_server.state.authorizations import Authorizations, Holder, ProvenAuthorization, own_authorization
from acme_server.state.store import Store
from kms.clock import Clock
from kms.pki.names import Name
from kms.resources.orders import ACMEOrder, AuthorizationState, Authorized, ChallengeType


def is_trusted(caller: Caller) -> bool:
    """Whether the account needs no proof of control: its credential counts (ownershipValidation: Skipped).

    An account without a credential, opened before the profile required bindings, still has to prove its names.
    """
    return not caller.profile.acme.validates_ownership and caller.account.spec.external_account is not None


def authorize_all(
    names: Sequence[Name], types: tuple[ChallengeType, ...], *, now: datetime, expires: datetime
) -> tuple[Authorized, ...]:
    """Authorize all names without proof. Each shows the first challenge that the profile would have required."""
    return tuple(
        Authorized(
            authorization=position,
            type=next(iter(challenges_for(name, types)), None),
            validated=now,
            expires=expires,
        )
        for position, name in enumerate(names)
    )


def find_reusable(
    names: Sequence[Name],
    types: tuple[ChallengeType, ...],
    find: Callable[[Holder], ProvenAuthorization | None],
    caller: Caller,
    *,
    client_namespace: str | None,
    now: datetime,
) -> tuple[Authorized, ...]:
    """The valid authorizations of the account for the names, by a challenge that is still offered.

    Those of other clients are not reused: the credential of the account may have been given to another namespace.
    A wildcard and its base name need separate proofs.
    """
    profile, account = caller.profile, caller.account
    found = []
    for position, name in enumerate(names):
        proof = find(Holder(profile.namespace, account.metadata.name, identifier_of(name)))
        if (
            proof is not None
            and proof.client_namespace == client_namespace
            and now - profile.authorization_lifetime < proof.validated
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


def state_of(
    order: ACMEOrder,
    relied_on: Authorized,
    original: ACMEOrder | None,
    *,
    now: datetime,
    profile: Profile | None = None,
) -> AuthorizationState:
    """The state of an authorization that the order reuses. `original` is the order it was made for; None: deleted.

    What the order says is not enough: the original must be of the same account, profile and namespace of clients, and
    have proven the same identifier itself; with `profile`, by a challenge that the profile offers, and not longer ago
    than it allows.
    """
    if original is None or relied_on.position is None:
        return "revoked"
    authorization = own_authorization(original, relied_on.position)
    if (
        authorization is None
        or original.spec.account_ref != order.spec.account_ref
        or original.spec.profile_ref != order.spec.profile_ref
        or original.spec.client_namespace != order.spec.client_namespace
        or original.spec.identifiers[relied_on.position] != order.spec.identifiers[relied_on.authorization]
        or authorization.state in {"pending", "invalid"}
    ):
        return "revoked"
    if authorization.state != "valid":
        return authorization.state
    expires = authorization.expires
    if profile is not None:
        proof = next((each for each in authorization.challenges if each.state == "valid"), None)
        if proof is None or proof.validated is None or not _is_offered(order, relied_on, proof.type, profile):
            return "revoked"
        expires = proof_ends(original, expires, validated=proof.validated, profile=profile)
    return "expired" if is_over(expires, now=now) else "valid"


def _is_offered(order: ACMEOrder, relied_on: Authorized, type_: ChallengeType, profile: Profile) -> bool:
    name = name_of(order.spec.identifiers[relied_on.authorization])
    return type_ in challenges_for(name, profile.acme.challenges)


class AuthorizationReuse:
    """Checks whether the authorizations behind `spec.authorized` are still valid.

    If this server is the only writer, the index of authorizations is enough, and a certificate costs no read. If other
    replicas may have written, and before a refusal, each original order is read live once.
    """

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        authorizations: Authorizations,
        credentials: EABCredentials,
        clock: Clock,
    ) -> None:
        self._orders = orders
        self._authorizations = authorizations
        self._credentials = credentials
        self._clock = clock

    async def find_lost(self, order: ACMEOrder, caller: Caller) -> Mapping[int, AuthorizationState]:
        """The authorizations that no longer allow a certificate: their states by position.

        Raises Unavailable.
        """
        trusted = is_trusted(caller)
        given: dict[int, AuthorizationState] = {
            each.authorization: "revoked" for each in order.spec.authorized if each.order is None and not trusted
        }
        clients = self._credentials.clients(caller.account)
        if clients is not None and (clients.shared or order.spec.client_namespace not in {None, clients.namespace}):
            # The credential was given to other clients since: they prove the names themselves. Orders of an earlier
            # release tell no namespace.
            return given | {each.authorization: "revoked" for each in order.spec.authorized if each.order is not None}
        profile = caller.profile
        confirmed = partial(self._is_good_in_index, profile=profile) if self._orders.is_sole_writer() else _nothing
        return given | await self._find_lost(order, _unconfirmed(order, confirmed), profile)

    async def find_known_lost(self, order: ACMEOrder) -> Mapping[int, AuthorizationState]:
        """The reused authorizations that this replica knows to be lost. Enough for answers to polls."""
        return await self._find_lost(order, _unconfirmed(order, self._is_valid_in_index))

    def _is_good_in_index(self, order: ACMEOrder, each: Authorized, *, profile: Profile) -> bool:
        """Whether the authorization is certainly valid, by what the profile says now. If not, its order is read."""
        proof = self._authorizations.find(Holder.of(order, order.spec.identifiers[each.authorization]))
        return (
            proof is not None
            and self._is_valid_in_index(order, each)
            and self._clock() - profile.authorization_lifetime < proof.validated
            and _is_offered(order, each, proof.type, profile)
        )

    def _is_valid_in_index(self, order: ACMEOrder, each: Authorized) -> bool:
        holder = Holder.of(order, order.spec.identifiers[each.authorization])
        return (
            each.order is not None
            and each.position is not None
            and (self._authorizations.holds(holder, each.order, each.position))
        )

    async def _find_lost(
        self, order: ACMEOrder, unconfirmed: Collection[Authorized], profile: Profile | None = None
    ) -> dict[int, AuthorizationState]:
        originals = await self._read(order, {each.order for each in unconfirmed if each.order is not None})
        now = self._clock()
        states = {
            each.authorization: state_of(order, each, originals.get(each.order or ""), now=now, profile=profile)
            for each in unconfirmed
        }
        return {position: state for position, state in states.items() if state != "valid"}

    async def _read(self, order: ACMEOrder, names: Iterable[str]) -> Mapping[str, ACMEOrder | None]:
        wanted = tuple(names)
        namespace = order.metadata.namespace
        found = await asyncio.gather(*(self._orders.read_live(namespace, name) for name in wanted))
        return dict(zip(wanted, found, strict=True))


def _nothing(_order: ACMEOrder, _each: Authorized) -> bool:
    """Confirm no authorization: another replica may have changed its order."""
    return False


def _unconfirmed(order: ACMEOrder, confirmed: Callable[[ACMEOrder, Authorized], bool]) -> tuple[Authorized, ...]:
    return tuple(each for each in order.spec.authorized if each.order is not None and not confirmed(order, each))
