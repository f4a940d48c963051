"""newOrder and newAuthz (RFC 8555, 7.4 and 7.4.1).

All checks that could stop the order later come before it is stored, so that no client solves challenges in vain. Names
that the account has proven before need no new proof. A new order costs one write.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime

from josepy.json_util import encode_b64jose
from msgspec.structs import replace

from acme_server.accounts import terms
from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.audit.log import decisions
from acme_server.metrics import Metrics
from acme_server.model import Caller, OrderProfile, Profile
from acme_server.orders import admission, authorization_reuse, identifiers, lifetimes, policy, transitions
from acme_server.orders.admission import Entitlement
from acme_server.orders.replacement import already_replaced, find_predecessor, is_successor, successor_name
from acme_server.payloads import NewAuthorization, NewOrder
from acme_server.problems import NotFound, ProblemType, Refused, Unavailable
from acme_server.profiles import Profiles
from acme_server.state.authorizations import Authorizations
from acme_server.state.certificates import CertificateRecord, Certificates
from acme_server.state.quotas import ObjectQuota, OpenOrderQuota, ProfileLimits
from acme_server.state.store import Store
from acme_server.state.weight import weigh_order
from acme_server.tasks import in_thread_if_large
from acme_server.validation.worker import Worker
from kms.clock import Clock, Entropy
from kms.cluster.errors import AlreadyExists
from kms.logs import log_often
from kms.pki.names import Name
from kms.resources.accounts import ACMEAccount
from kms.resources.client_namespaces import Clients
from kms.resources.columns import list_text
from kms.resources.meta import LocalRef, ObjectMeta, key_of
from kms.resources.orders import ACCOUNT, ACMEOrder, Authorized, ChallengeType, OrderSpec

_NAME_BYTES = 20
_TOKEN_KEY_BYTES = 32
_REPLACEMENTS = 30
"""Failed orders that may try to replace the same certificate; they are deleted after a day."""


class NewOrders:
    """Creates orders, and authorizations before orders."""

    def __init__(
        self,
        *,
        store: Store[ACMEOrder],
        accounts: Store[ACMEAccount],
        profiles: Profiles,
        credentials: EABCredentials,
        open_orders: OpenOrderQuota,
        quota: ObjectQuota[ACMEOrder],
        authorizations: Authorizations,
        certificates: Certificates,
        worker: Worker,
        is_renewal_due: Callable[[Profile, CertificateRecord], bool],
        objection: policy.Objection,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._profiles = profiles
        self._credentials = credentials
        self._open_orders = open_orders
        self._quota = quota
        self._authorizations = authorizations
        self._certificates = certificates
        self._worker = worker
        self._is_renewal_due = is_renewal_due
        self._objection = objection
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics

    async def create(self, caller: Caller, wanted: NewOrder) -> ACMEOrder:
        """Create an order.

        Raises Refused for a profile that the account may not choose, identifiers that the profile does not certify,
        unsupported dates, too many open orders, a credential that is suspended or gone or whose namespace the profile
        suspends or does not allow, a certificate that it cannot replace, and terms of service that have changed; and
        Unavailable.
        """
        profile, account, now = caller.profile, caller.account, self._clock()
        types = self._types(profile)
        try:
            await self._credentials.admit(account, profile.acme)
            await self._require_agreement(caller)
            chosen = self._profiles.choose(profile, wanted.profile)
            self._credentials.admit_profile(account, wanted.profile)
            size = admission.require_short(wanted.identifiers)
            names = await in_thread_if_large(identifiers.normalise, wanted.identifiers, size=size)
            clients = self._credentials.clients(account)
            self._admit_names(names, chosen, caller, types, clients)
            dates = admission.admit_dates(wanted.not_before, wanted.not_after, chosen.profile, now=now)
            predecessor = None
            if wanted.replaces is not None:
                predecessor = find_predecessor(self._certificates, caller, wanted.replaces, names)
        except Refused as refused:
            self._refuse(caller, refused)
            raise
        authorized = self._find_authorized(caller, names, types, clients, now=now)
        not_before, not_after = dates
        order = self._resource(
            profile,
            labels={ACCOUNT: account.metadata.name},
            spec=OrderSpec(
                account_ref=LocalRef(name=account.metadata.name),
                profile_ref=LocalRef(name=profile.name),
                identifiers=tuple(identifiers.identifier_of(each) for each in names),
                names=list_text([name.value for name in names]),
                client_namespace=clients.namespace if clients is not None else None,
                expires=lifetimes.order_expires(profile, authorized, now=now),
                not_before=not_before,
                not_after=not_after,
                profile=chosen.name,
                contents_ref=chosen.contents,
                challenges=types,
                token_key=self._token_key(),
                authorized=authorized,
            ),
        )
        try:
            if predecessor is None:
                order = await self._add(caller, order)
            else:
                order = await self._add_successor(caller, predecessor, order, wanted)
        except Refused as refused:
            self._refuse(caller, refused)
            raise
        self._metrics.count_order("created", profile.key)
        _log(
            "order created",
            caller,
            order=order.metadata.name,
            client_namespace=order.spec.client_namespace,
            names=",".join(name.value for name in names),
            reused=sum(each.order is not None for each in authorized),
        )
        return order

    async def _require_agreement(self, caller: Caller) -> None:
        """Raise Refused (userActionRequired) if the account has to agree to new terms first.

        Based on a live read: another replica may have recorded the agreement. Raises Unavailable too.
        """
        acme, account = caller.profile.acme, caller.account
        if terms.is_outdated(acme, account):
            current = await self._accounts.read_live(*key_of(account))
            terms.require_current(acme, current or account)

    def _refuse(self, caller: Caller, refused: Refused) -> None:
        self._metrics.count_order("refused", caller.profile.key)
        _log("order refused", caller, error=str(refused))

    async def _add(self, caller: Caller, order: ACMEOrder, *, renewal: bool = False) -> ACMEOrder:
        """Store the order if account, profile, namespace and server may have it; a `renewal` may use the reserve.

        Raises AlreadyExists, Refused (rateLimited) and Unavailable.
        """
        profile, account, acme = caller.profile, caller.account.metadata.name, caller.profile.acme
        octets = weigh_order(order)
        limits = ProfileLimits(
            objects=acme.maximum_orders,
            octets=acme.maximum_order_bytes,
            objects_field="spec.enrollment.acme.maximumOrders",
            octets_field="spec.enrollment.acme.maximumOrderBytes",
        )
        stored = self._quota.usage_of_account(profile, account)
        with (
            self._open_orders.hold(profile.namespace, account, octets, stored=stored, renewal=renewal),
            self._quota.hold(profile, account, octets, limits, tenant=order.tenant, renewal=renewal),
        ):
            return await self._store.add(order)

    async def _add_successor(
        self, caller: Caller, predecessor: CertificateRecord, order: ACMEOrder, wanted: NewOrder
    ) -> ACMEOrder:
        """Store the order under the name of the certificate's successor, so that etcd admits one.

        A renewal must not wait for others: the first one of a certificate that is due for it may use the reserve.
        Raises Refused (alreadyReplaced) unless all earlier successors have become invalid. Orders that others have
        created by hand under such names are none; where they have taken all, the order keeps the name that it has.
        """
        due, strangers = self._is_renewal_due(caller.profile, predecessor), 0
        for attempt in range(_REPLACEMENTS):
            meta = replace(order.metadata, name=successor_name(predecessor, attempt))
            successor = replace(order, metadata=meta, spec=replace(order.spec, replaces=wanted.replaces))
            earlier = self._store.get_cached(*key_of(successor))
            if earlier is not None and earlier.status.state == "invalid":
                continue  # for good: no request to the API server says anything else
            try:
                return await self._add(caller, successor, renewal=due and attempt == 0)
            except AlreadyExists:
                existing = await self._store.read_live(*key_of(successor))
            if existing is None:
                raise Unavailable("The order that replaces the certificate is being removed at this moment.")
            if not is_successor(existing, successor, lifetime=caller.profile.order_lifetime, now=self._clock()):
                strangers += 1
            elif transitions.expired(existing, now=self._clock()).status.state != "invalid":
                raise already_replaced()
        if strangers:
            kept = replace(order, spec=replace(order.spec, replaces=wanted.replaces))
            return await self._add(caller, kept, renewal=due)
        raise Refused(
            ProblemType.MALFORMED, f"replaces: {_REPLACEMENTS} orders have failed to replace the certificate."
        )

    async def preauthorize(self, caller: Caller, wanted: NewAuthorization) -> ACMEOrder:
        """Create an authorization before any order. It is stored as an order that clients cannot read as one.

        Raises NotFound if the profile does not offer this, Refused for a wildcard and as `create` does, and
        Unavailable.
        """
        profile, account = caller.profile, caller.account
        if profile.acme.pre_authorization != "Enabled":
            raise NotFound(
                f"Profile {profile.namespace}/{profile.name} opens no authorizations before orders (newAuthz)."
            )
        now = self._clock()
        await self._credentials.admit(account, profile.acme)
        await self._require_agreement(caller)
        names = identifiers.normalise((wanted.identifier,))
        if names[0].is_wildcard:
            raise Refused(ProblemType.MALFORMED, "An authorization before any order cannot be for a wildcard.")
        types = self._types(profile)
        clients = self._credentials.clients(account)
        self._admit_names(names, OrderProfile(profile), caller, types, clients)
        expires = lifetimes.order_expires(profile, now=now)
        trusted = authorization_reuse.is_trusted(caller)
        authorized = authorization_reuse.authorize_all(names, types, now=now, expires=expires) if trusted else ()
        order = await self._add(
            caller,
            self._resource(
                profile,
                labels={},  # lists of orders leave it out
                spec=OrderSpec(
                    account_ref=LocalRef(name=account.metadata.name),
                    profile_ref=LocalRef(name=profile.name),
                    identifiers=tuple(identifiers.identifier_of(each) for each in names),
                    names=list_text([name.value for name in names]),
                    client_namespace=clients.namespace if clients is not None else None,
                    expires=expires,
                    preauthorization=True,
                    challenges=types,
                    token_key=self._token_key(),
                    authorized=authorized,
                ),
            ),
        )
        _log("authorization created", caller, order=order.metadata.name, names=names[0].value)
        return order

    def _admit_names(
        self,
        names: Sequence[Name],
        chosen: OrderProfile,
        caller: Caller,
        types: tuple[ChallengeType, ...],
        clients: Clients | None,
    ) -> None:
        trusted = authorization_reuse.is_trusted(caller)
        entitlement = Entitlement(
            caller.profile,
            narrowing=self._credentials.narrowing(caller.account),
            granted=self._credentials.granted(clients, caller.profile),
            types=None if trusted else types,
            objection=self._objection,
        )
        admission.admit_names(names, chosen, entitlement)

    def _find_authorized(
        self,
        caller: Caller,
        names: Sequence[Name],
        types: tuple[ChallengeType, ...],
        clients: Clients | None,
        *,
        now: datetime,
    ) -> tuple[Authorized, ...]:
        """The names that need no new challenge."""
        if authorization_reuse.is_trusted(caller):
            expires = lifetimes.order_expires(caller.profile, now=now)
            return authorization_reuse.authorize_all(names, types, now=now, expires=expires)
        if clients is not None and clients.shared:
            return ()
        namespace = clients.namespace if clients is not None else None
        return authorization_reuse.find_reusable(
            names, types, self._authorizations.find, caller, client_namespace=namespace, now=now
        )

    def _resource(self, profile: Profile, *, labels: dict[str, str], spec: OrderSpec) -> ACMEOrder:
        return ACMEOrder(
            metadata=ObjectMeta(
                namespace=profile.namespace,
                name=base64.b32encode(self._entropy(_NAME_BYTES)).decode().lower(),
                labels=labels,
            ),
            spec=spec,
        )

    def _types(self, profile: Profile) -> tuple[ChallengeType, ...]:
        """The challenges that are offered: those of the profile that can be validated here."""
        return tuple(each for each in profile.acme.challenges if self._worker.validates(each))

    def _token_key(self) -> str:
        """A key of 256 bits, from which the tokens of all challenges are derived."""
        return encode_b64jose(self._entropy(_TOKEN_KEY_BYTES))


def _log(event: str, caller: Caller, **more: object) -> None:
    who = {"account": caller.account.metadata.name, "profile": "/".join(caller.profile.key)}
    log_often(decisions, event, who | more)
