"""How many accounts and orders may exist, and what they may take: etcd must not fill up, nor one tenant take it all.

Each limit is for a number of objects and for their octets (`acme_server.state.weight`). What one namespace may use is
a share of what the other namespaces leave, and what one account may use is a share of what the other accounts leave to
its namespace. The clients of another namespace than the profile's are a tenant: they may open any number of accounts,
so together they may use no more than one account may. So there is room for one more, however many are greedy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeVar

from acme_server.model import Profile
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.state.index import Index, View
from acme_server.state.retention import unsuccessful_until
from acme_server.state.write_rate import WriteRate
from kms.clock import Clock
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key
from kms.resources.orders import ACMEOrder, with_authorizations
from kms.shares import RESERVE, share_of, with_reserve

MAXIMUM_OPEN_ORDERS = 300
"""Orders of one account without a certificate. cert-manager works on 60 challenges at a time; more only fill etcd."""
MAXIMUM_OPEN_OCTETS = 8 * 2**20
_RETRY_WHEN_FULL = 300
_RETRY_WHEN_BUSY = 30
_RETRY_WHEN_LOADING = 5
_MEBIBYTE = 2**20

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T", bound=ACMEAccount | ACMEOrder)


@dataclass(slots=True)
class Usage:
    """A number of objects, and their octets."""

    objects: int = 0
    octets: int = 0

    def add(self, objects: int, octets: int) -> None:
        """Add to both; negative numbers subtract."""
        self.objects += objects
        self.octets += octets


class _Scope(NamedTuple):
    """What an object counts for. `name` is (namespace, profile, tenant, account), and `own` what has it."""

    name: tuple[str, str, str, str]
    namespace: Usage
    profile: Usage
    tenant: Usage
    account: Usage
    own: Usage


class _Limit(NamedTuple):
    """`most` objects or octets, of which `used` are in use; `text` names the limit, `{}` in the place of the amount."""

    used: int
    most: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLimits:
    """What a profile allows of one kind (None: any amount), and the fields that say so."""

    objects: int | None = None
    octets: int | None = None
    objects_field: str = ""
    octets_field: str = ""


class ObjectQuota(View[T]):
    """Counts and weighs the objects of one kind: altogether, by namespace, by profile and by account.

    `what` names the kind in problem documents. Objects for which `counts_for_profile` is false (aliases of accounts)
    count for no profile. `weigh` returns the octets of an object, `account_of` the name of the account that it is for,
    "" for a kind that accounts do not have, and `tenant_of` the namespace of its clients if they are tenants of the
    profile, else "". The shares are numbers from 0 to 1; that of an account is also a tenant's. `write_rate` counts
    each new version.
    """

    def __init__(
        self,
        index: Index[T],
        what: str,
        *,
        maximum: int,
        maximum_octets: int = sys.maxsize,
        namespace_share: float = 1.0,
        account_share: float = 1.0,
        reserve: float = RESERVE,
        write_rate: WriteRate | None = None,
        weigh: Callable[[T], int] = lambda _resource: 0,
        account_of: Callable[[T], str] = lambda _resource: "",
        tenant_of: Callable[[T], str] = lambda _resource: "",
        counts_for_profile: Callable[[T], bool] = lambda _resource: True,
    ) -> None:
        super().__init__(index)
        self._what = what
        self.maximum = maximum
        self.maximum_octets = maximum_octets
        self._namespace_share = namespace_share
        self._account_share = account_share
        self._reserve = reserve
        self._write_rate = write_rate
        self._weigh = weigh
        self._account_of = account_of
        self._tenant_of = tenant_of
        self._counts_for_profile = counts_for_profile
        self._entries: dict[Key, tuple[_Scope, int]] = {}
        self._whole = Usage()
        self._namespaces: dict[str, Usage] = {}
        self._profiles: dict[Key, Usage] = {}
        self._tenants: dict[tuple[str, str], Usage] = {}
        self._accounts: dict[tuple[str, str, str], Usage] = {}
        self._scopes: dict[tuple[str, str, str, str], _Scope] = {}

    def __len__(self) -> int:
        return self._whole.objects

    def octets(self) -> int:
        """The octets of all objects."""
        return self._whole.octets

    def octets_of(self, key: Key) -> int:
        """The octets of the object; it must be one that counts."""
        return self._entries[key][1]

    def count(self, namespace: str, profile: str) -> int:
        """The number of objects of the profile."""
        return self._profiles.get((namespace, profile), Usage()).objects

    def usage_of_account(self, profile: Profile, account: str) -> Usage:
        """The objects of the account."""
        return self._accounts.get((*profile.key, account), Usage())

    def put(self, key: Key, resource: T) -> None:
        """Count the object; one that took the name of another before that was seen to go, in its place."""
        profile = resource.spec.profile_ref.name if self._counts_for_profile(resource) else ""
        octets, tenant = self._weigh(resource), self._tenant_of(resource)
        if self._write_rate is not None and self._index.complete:
            # While the index is incomplete, objects are listed that were written long ago.
            self._write_rate.add(key[0], octets, tenant)
        self._discard(key)
        scope = self._scope(key[0], profile, tenant, self._account_of(resource))
        self._entries[key] = scope, octets
        self._add(scope, 1, octets)

    def remove(self, key: Key) -> None:
        """Stop counting the object."""
        self._discard(key)

    def obscure(self, key: Key) -> None:
        """Go on counting the object: it still takes its place. One of an unknown profile counts altogether."""
        if key not in self._entries:
            scope = self._scope(key[0], "", "", "")
            self._entries[key] = scope, 0
            self._add(scope, 1, 0)

    @contextmanager
    def hold(
        self,
        profile: Profile,
        account: str,
        octets: int,
        limits: ProfileLimits,
        *,
        tenant: str = "",
        renewal: bool = False,
    ) -> Iterator[None]:
        """Admit an object of that many octets, and count it until the block ends: by then it is stored and counted.

        So requests that come at once are admitted one by one. A `renewal` may exceed each limit by the reserve. Raises
        Refused (rateLimited), and Unavailable before all objects have been counted for the first time.
        """
        if not self._index.loaded:
            raise Unavailable(f"The server is still counting its {self._what}.", _RETRY_WHEN_LOADING)
        scope = self._scope(*profile.key, tenant, account)
        self._admit(scope, octets, limits, renewal=renewal)
        self._add(scope, 1, octets)
        try:
            yield
        finally:
            self._add(scope, -1, -octets)

    def require_room(self, octets: int) -> None:
        """Raise Refused (rateLimited) if no object may grow by that much: the whole and its reserve are used up."""
        most = with_reserve(self.maximum_octets, self._reserve)
        if self._whole.octets + octets > most:
            raise _full(f"This server has reached its limit of {self._octets(most)}.")

    def _admit(self, scope: _Scope, octets: int, limits: ProfileLimits, *, renewal: bool) -> None:
        for wanted, amount, found in (
            (1, self._objects, self._limits_of_objects(scope, limits)),
            (octets, self._octets, self._limits_of_octets(scope, limits)),
        ):
            for limit in found:
                most = with_reserve(limit.most, self._reserve) if renewal else limit.most
                if limit.used + wanted > most:
                    raise _full(limit.text.format(amount(limit.most)))

    def _limits_of_objects(self, scope: _Scope, limits: ProfileLimits) -> list[_Limit]:
        used = [each.objects for each in (self._whole, *scope[1:])]
        return self._limits(scope.name, used, self.maximum, limits.objects, limits.objects_field)

    def _limits_of_octets(self, scope: _Scope, limits: ProfileLimits) -> list[_Limit]:
        used = [each.octets for each in (self._whole, *scope[1:])]
        return self._limits(scope.name, used, self.maximum_octets, limits.octets, limits.octets_field)

    def _limits(
        self, scope: tuple[str, str, str, str], used: list[int], whole: int, of_profile: int | None, field: str
    ) -> list[_Limit]:
        """The limits of profile, server, namespace and tenant and, for what accounts have, of the account."""
        namespace, profile, tenant, account = scope
        everywhere, in_namespace, of_its_profile, of_its_tenant, of_its_account, _ = used
        share = share_of(whole, everywhere - in_namespace, self._namespace_share)
        limits = [
            _Limit(everywhere, whole, "This server has reached its limit of {}."),
            _Limit(in_namespace, share, f"Namespace {namespace} has reached its share of {{}}."),
        ]
        if of_profile is not None:
            text = f"Profile {namespace}/{profile} has reached its limit of {{}} ({field})."
            limits.insert(0, _Limit(of_its_profile, of_profile, text))
        for name, own, text in (
            (tenant, of_its_tenant, f"Clients of namespace {tenant} have reached their share of {{}}."),
            (account, of_its_account, "The account has reached its share of {}."),
        ):
            if name:
                limits.append(_Limit(own, share_of(share, in_namespace - own, self._account_share), text))
        return limits

    def _objects(self, count: int) -> str:
        return f"{count} {self._what}"

    def _octets(self, count: int) -> str:
        return f"{count / _MEBIBYTE:.1f} MiB of {self._what}"

    def _scope(self, namespace: str, profile: str, tenant: str, account: str) -> _Scope:
        """The scope with that name, which counts only if objects are added to it."""
        name = namespace, profile, tenant, account
        found = self._scopes.get(name)
        if found is None:
            found = _Scope(
                (sys.intern(namespace), sys.intern(profile), sys.intern(tenant), sys.intern(account)),
                self._namespaces.get(namespace) or Usage(),
                self._profiles.get((namespace, profile)) or Usage(),
                self._tenants.get((namespace, tenant)) or Usage(),
                self._accounts.get((namespace, profile, account)) or Usage(),
                Usage(),
            )
        return found

    def _add(self, scope: _Scope, objects: int, octets: int) -> None:
        for usage in (self._whole, *scope[1:]):
            usage.objects += objects
            usage.octets += octets
        if scope.own.objects in {0, objects}:
            self._keep_or_drop(scope)

    def _keep_or_drop(self, scope: _Scope) -> None:
        """Keep the scope and its usages while objects count for them. Its first object and its last change that."""
        namespace, profile, tenant, account = scope.name
        _keep(self._scopes, scope.name, scope, scope.own)
        _keep(self._accounts, (namespace, profile, account), scope.account, scope.account)
        _keep(self._tenants, (namespace, tenant), scope.tenant, scope.tenant)
        _keep(self._profiles, (namespace, profile), scope.profile, scope.profile)
        _keep(self._namespaces, namespace, scope.namespace, scope.namespace)

    def _discard(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            scope, octets = entry
            self._add(scope, -1, -octets)


class OpenOrderQuota(View[ACMEOrder]):
    """Counts and weighs the orders of each account that have no certificate: open, failed and abandoned ones.

    A failed order counts until it is deleted, a day later: else an account that fails would fill etcd. An account that
    has certificates may fail as many orders more: a day without DNS must not stop its renewals.

    `octets_of` is that of the ObjectQuota of all orders, which was made first: so it has weighed each version before.
    """

    def __init__(
        self,
        index: Index[ACMEOrder],
        *,
        octets_of: Callable[[Key], int],
        clock: Clock,
        maximum: int = MAXIMUM_OPEN_ORDERS,
        maximum_octets: int = MAXIMUM_OPEN_OCTETS,
        reserve: float = RESERVE,
    ) -> None:
        super().__init__(index)
        self._octets_of = octets_of
        self._clock = clock
        self.maximum = maximum
        self.maximum_octets = maximum_octets
        self._reserve = reserve
        self._accounts: dict[Key, Key] = {}
        self._orders: dict[Key, dict[Key, tuple[datetime, int]]] = {}
        self._held: dict[Key, Usage] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def count(self, namespace: str, account: str) -> int:
        """The number of the account's orders that have no certificate and are not due for deletion."""
        return self._usage((namespace, account)).objects

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Count the order until it has a certificate; a pre-authorization, until it is valid."""
        self.remove(key)
        until = unsuccessful_until(order)
        # Lists and events have no authorizations of a new order, and so not the state that follows from them.
        if until is None or (order.spec.preauthorization and with_authorizations(order).status.state == "ready"):
            return
        account = self._accounts[key] = sys.intern(key[0]), sys.intern(order.spec.account_ref.name)
        self._orders.setdefault(account, {})[key] = until, self._octets_of(key)

    def remove(self, key: Key) -> None:
        """Stop counting the order."""
        account = self._accounts.pop(key, None)
        if account is None:
            return
        orders = self._orders[account]
        del orders[key]
        if not orders:
            del self._orders[account]

    def obscure(self, key: Key) -> None:
        """Go on counting the order, until it expires."""

    @contextmanager
    def hold(
        self, namespace: str, account: str, octets: int, *, stored: Usage, renewal: bool = False
    ) -> Iterator[None]:
        """Admit an order of that many octets, and count it until the block ends: by then it is stored and counted.

        `stored` are all orders of the account; those with a certificate raise its limits. A `renewal` may exceed each
        limit by the reserve. Raises Refused (rateLimited).
        """
        key = sys.intern(namespace), sys.intern(account)
        used, held = self._usage(key), self._held.get(key) or Usage()
        used.add(held.objects, held.octets)
        objects = self.maximum + max(0, stored.objects - used.objects)
        most = self.maximum_octets + max(0, stored.octets - used.octets)
        if renewal:
            objects, most = with_reserve(objects, self._reserve), with_reserve(most, self._reserve)
        if used.objects >= objects or used.octets + octets > most:
            raise Refused(
                ProblemType.RATE_LIMITED,
                f"The account has {used.objects} orders that are open or failed within a day; finish some of them.",
                retry_after=_RETRY_WHEN_BUSY,
            )
        held.add(1, octets)
        _keep(self._held, key, held, held)
        try:
            yield
        finally:
            held.add(-1, -octets)
            _keep(self._held, key, held, held)

    def _usage(self, account: Key) -> Usage:
        now = self._clock()
        counted = [octets for until, octets in self._orders.get(account, {}).values() if until >= now]
        return Usage(len(counted), sum(counted))


def _keep(known: dict[K, V], name: K, value: V, usage: Usage) -> None:
    """Keep the value under that name while objects count for it."""
    if usage.objects:
        known[name] = value
    else:
        known.pop(name, None)


def _full(detail: str) -> Refused:
    return Refused(ProblemType.RATE_LIMITED, detail, retry_after=_RETRY_WHEN_FULL)
