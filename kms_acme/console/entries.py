"""What is kept of orders, accounts, credentials and Events: a hundred thousand of them have to fit into memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from acme_server.orders.lifetimes import is_over
from kms.resources.accounts import AccountState
from kms.resources.credentials import EABCredential
from kms.resources.kinds import ACCOUNTS, Kind
from kms.resources.meta import Condition, Key, LocalRef, NamespacedRef, ObjectMeta, Struct, Time, key_of
from kms.resources.orders import OPEN_STATES, OrderState
from kms_acme.certificates import ListedOrder, Row, row_of

_LONGEST = 300
"""Characters of a sentence in a list; the page of the object has all of it."""


@dataclass(frozen=True, slots=True)
class Uncertified:
    """An order without a certificate."""

    namespace: str
    order: str
    names: tuple[str, ...]
    profile: str
    account: str
    state: OrderState | Literal["expired"]
    created: datetime | None
    expires: datetime | None
    problem: str

    @property
    def has_failed(self) -> bool:
        """Whether it ended without a certificate because something was wrong."""
        return self.state == "invalid"


Order: TypeAlias = Row | Uncertified


def order_entry(order: ListedOrder, authorities: Mapping[Key, str], *, now: datetime) -> Order:
    """What is kept of an order. `authorities` are names of CAs by namespace and key identifier."""
    row = row_of(order, authorities, now=now)
    if row is not None:
        return row
    error = order.status.error
    return Uncertified(
        namespace=order.namespace,
        order=order.metadata.name,
        names=order.names,
        profile=order.profile,
        account=order.account,
        state=order.status.state,
        created=order.metadata.creation_timestamp,
        expires=order.spec.expires,
        problem=shortened(f"{error.detail} ({error.type})") if error is not None else "",
    )


def as_of(order: Order, now: datetime) -> Order:
    """The order now: certificates and open orders end without a change of the object."""
    if isinstance(order, Row):
        has_ended = order.state == "valid" and is_over(order.not_after, now=now)
    else:
        has_ended = order.state in OPEN_STATES and order.expires is not None and is_over(order.expires, now=now)
    return replace(order, state="expired") if has_ended else order


class _AccountSpec(Struct, frozen=True, kw_only=True):
    profile_ref: LocalRef
    external_account: NamespacedRef | None = None
    alias_of: LocalRef | None = None


class _AccountStatus(Struct, frozen=True, kw_only=True):
    state: AccountState | None = None
    contact: tuple[str, ...] = ()


class ListedAccount(Struct, frozen=True, kw_only=True):
    """The part of an ACMEAccount that the list shows."""

    metadata: ObjectMeta
    spec: _AccountSpec
    status: _AccountStatus = _AccountStatus()


LISTED_ACCOUNTS = Kind(ACCOUNTS.group, ACCOUNTS.version, ACCOUNTS.kind, ACCOUNTS.plural, ListedAccount)


@dataclass(frozen=True, slots=True)
class Account:
    """An account, or (`is_alias`) the name of a later key of one."""

    namespace: str
    name: str
    profile: str
    credential: Key | None
    state: str
    contact: str
    created: datetime | None
    is_alias: bool


def account_entry(account: ListedAccount) -> Account:
    """What is kept of an account."""
    binding, metadata = account.spec.external_account, account.metadata
    credential = None
    if binding is not None:
        credential = sys.intern(binding.namespace or metadata.namespace), sys.intern(binding.name)
    return Account(
        namespace=sys.intern(metadata.namespace),
        name=metadata.name,
        profile=sys.intern(account.spec.profile_ref.name),
        credential=credential,
        state=account.status.state or "not open",
        contact=shortened(", ".join(account.status.contact)),
        created=metadata.creation_timestamp,
        is_alias=account.spec.alias_of is not None,
    )


@dataclass(frozen=True, slots=True)
class Credential:
    """An EABCredential."""

    namespace: str
    name: str
    profile: Key
    accounts: int | None
    expires: datetime | None
    is_suspended: bool
    conditions: tuple[Condition, ...]


def credential_entry(credential: EABCredential) -> Credential:
    """What is kept of a credential: its names may take 36 kB."""
    namespace, name = key_of(credential)
    return Credential(
        namespace=namespace,
        name=name,
        profile=credential.profile_key,
        accounts=credential.status.accounts,
        expires=credential.spec.expires_at,
        is_suspended=credential.spec.suspended,
        conditions=credential.status.conditions,
    )


class _Regarding(Struct, frozen=True, kw_only=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""


class _Series(Struct, frozen=True, kw_only=True):
    count: int = 1
    last_observed_time: Time | None = None


class Event(Struct, frozen=True, kw_only=True):
    """events.k8s.io/v1 Event."""

    metadata: ObjectMeta
    event_time: Time | None = None
    type: str = ""
    reason: str = ""
    note: str = ""
    regarding: _Regarding = msgspec.field(default_factory=_Regarding)
    series: _Series | None = None

    @property
    def count(self) -> int:
        """How often it happened."""
        return self.series.count if self.series is not None else 1

    @property
    def last(self) -> datetime | None:
        """When it happened last."""
        if self.series is not None and self.series.last_observed_time is not None:
            return self.series.last_observed_time
        return self.event_time


EVENTS = Kind("events.k8s.io", "v1", "Event", "events", Event)


def shortened(text: str) -> str:
    """The text, or its beginning."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
