"""The inventory of certificates: filters, rows and what was not renewed. Pure, but for reading the pages."""

from __future__ import annotations

import hashlib
import ipaddress
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from acme_server.model import CertificateId
from acme_server.orders.lifetimes import is_over
from kms.address import Network
from kms.cluster.client import Cluster
from kms.cluster.list_all import list_all
from kms.pki.pattern_sets import PatternSet, Value
from kms.pki.patterns import label_pattern
from kms.resources.kinds import ACCOUNTS, AUTHORITIES, ORDERS, Kind
from kms.resources.meta import Key, LocalRef, ObjectMeta, Struct, Time, Unreadable
from kms.resources.orders import Identifier, OrderState, Revocation

State = Literal["valid", "revoked", "expired"]
SORTS = ("not-after", "issued", "name", "profile")


class _Spec(Struct, frozen=True, kw_only=True):
    account_ref: LocalRef
    profile_ref: LocalRef
    identifiers: tuple[Identifier, ...]
    client_namespace: str | None = None
    replaces: str | None = None
    expires: Time | None = None


class _Problem(Struct, frozen=True, kw_only=True):
    type: str
    detail: str


class _Status(Struct, frozen=True, kw_only=True):
    state: OrderState = "pending"
    error: _Problem | None = None
    serial_number: str | None = None
    authority_key_id: str | None = msgspec.field(default=None, name="authorityKeyID")
    issued_at: Time | None = None
    not_before: Time | None = None
    not_after: Time | None = None
    revocation: Revocation | None = None


class ListedOrder(Struct, frozen=True, kw_only=True):
    """The part of an ACMEOrder that the inventory shows: decoding the rest would take most of the time."""

    metadata: ObjectMeta
    spec: _Spec
    status: _Status = _Status()

    @property
    def namespace(self) -> str:
        """Its namespace, one string for all orders that have it: rows of a hundred thousand orders are kept."""
        return sys.intern(self.metadata.namespace)

    @property
    def profile(self) -> str:
        """The name of its profile, likewise."""
        return sys.intern(self.spec.profile_ref.name)

    @property
    def account(self) -> str:
        """The name of its account, likewise."""
        return sys.intern(self.spec.account_ref.name)

    @property
    def names(self) -> tuple[str, ...]:
        """What it asks a certificate for."""
        return tuple(each.value for each in self.spec.identifiers)


LISTED_ORDERS = Kind(ORDERS.group, ORDERS.version, ORDERS.kind, ORDERS.plural, ListedOrder)


@dataclass(frozen=True, slots=True)
class Row:
    """A certificate. `authority` is the name of its CA in its namespace, None for one that is unknown."""

    namespace: str
    order: str
    serial: str
    names: tuple[str, ...]
    profile: str
    account: str
    clients: str | None
    authority: str | None
    issued: datetime | None
    not_before: datetime | None
    not_after: datetime
    state: State
    revocation: str | None
    replaces: str | None
    id: str
    """Its identifier for renewal information (RFC 9773), "" if the CA's key is not known."""

    @property
    def subject(self) -> bytes:
        """What a renewal has in common with it: profile and names."""
        text = "\n".join((self.namespace, self.profile, *sorted(self.names)))
        return hashlib.blake2b(text.encode(), digest_size=12).digest()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which certificates to list; None: any. `profile` and `account` are (namespace, name).

    `accounts` are the accounts of a credential. `expiring` means: valid now, and not that long; `due`: valid, and in
    the last third of its lifetime.
    """

    profile: Key | None = None
    account: Key | None = None
    accounts: Collection[Key] | None = None
    authority: Key | None = None
    name: Callable[[str], bool] | None = None
    state: State | None = None
    expiring: timedelta | None = None
    due: bool = False

    def matches(self, row: Row, *, now: datetime) -> bool:
        """Whether the certificate is one of them."""
        return (
            self.profile in {None, (row.namespace, row.profile)}
            and self.account in {None, (row.namespace, row.account)}
            and (self.accounts is None or (row.namespace, row.account) in self.accounts)
            and self.authority in {None, (row.namespace, row.authority)}
            and (self.name is None or any(map(self.name, row.names)))
            and self.state in {None, row.state}
            and (self.expiring is None or (row.state == "valid" and row.not_after - now <= self.expiring))
            and (not self.due or _is_due(row, now=now))
        )


def _is_due(row: Row, *, now: datetime) -> bool:
    begins = row.not_before or row.issued or now
    return row.state == "valid" and row.not_after - now <= (row.not_after - begins) / 3


def name_filter(pattern: str) -> Callable[[str], bool]:
    """Whether a name matches: a DNS name a pattern as in a policy, an IP address an address or a network.

    A wildcard `*.example.com` matches by its base, as in a policy. Raises ValueError for what is no pattern.
    """
    try:
        network: Network | None = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        network = None
    if network is not None:
        return lambda name: _is_in(name, network)
    patterns = PatternSet((label_pattern(pattern),))
    return lambda name: patterns.find(Value.of(_base(name))) is not None


def _is_in(name: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(name) in network
    except ValueError:
        return False


def _base(name: str) -> str:
    return name.removeprefix("*.")


class Renewals:
    """Which certificates have a successor: a valid one that ends later for the same names, or that replaces them."""

    def __init__(self) -> None:
        self._ends: dict[bytes, float] = {}
        self._replaced: set[str] = set()

    def note(self, row: Row) -> None:
        """Take a certificate into account."""
        if row.state != "valid":
            return
        if row.replaces is not None:
            self._replaced.add(row.replaces)
        ends = row.not_after.timestamp()
        if ends > self._ends.get(row.subject, 0):
            self._ends[row.subject] = ends

    def has_successor(self, row: Row) -> bool:
        """Whether the certificate was renewed, as far as all certificates were noted."""
        return row.id in self._replaced or self._ends.get(row.subject, 0) > row.not_after.timestamp()


def row_of(order: ListedOrder, authorities: Mapping[tuple[str, str], str], *, now: datetime) -> Row | None:
    """The certificate of an order; None: it has none. `authorities` are names by namespace and key identifier."""
    status, namespace = order.status, order.namespace
    serial, key_id = status.serial_number, status.authority_key_id
    if serial is None or status.not_after is None:
        return None
    state: State = "valid"
    if status.revocation is not None:
        state = "revoked"
    elif is_over(status.not_after, now=now):
        state = "expired"
    return Row(
        namespace=namespace,
        order=order.metadata.name,
        serial=serial,
        names=order.names,
        profile=order.profile,
        account=order.account,
        clients=sys.intern(order.spec.client_namespace) if order.spec.client_namespace is not None else None,
        authority=authorities.get((namespace, key_id)) if key_id is not None else None,
        issued=status.issued_at,
        not_before=status.not_before,
        not_after=status.not_after,
        state=state,
        revocation=status.revocation.reason if status.revocation is not None else None,
        replaces=order.spec.replaces,
        id=_id(key_id, serial),
    )


def _id(key_id: str | None, serial: str) -> str:
    """Its identifier, "" if it has none: a damaged status does not hide the certificate."""
    try:
        return str(CertificateId(key_id, serial)) if key_id is not None else ""
    except ValueError:
        return ""


def sort_rows(rows: Iterable[Row], by: str) -> list[Row]:
    """The rows in one of the SORTS."""
    match by:
        case "not-after":
            return sorted(rows, key=lambda row: row.not_after)
        case "issued":
            return sorted(rows, key=lambda row: row.issued or row.not_after)
        case "name":
            return sorted(rows, key=lambda row: row.names)
        case _:
            return sorted(rows, key=lambda row: (row.namespace, row.profile, row.names))


async def select_rows(
    orders: AsyncIterator[ListedOrder],
    chosen: Filter,
    *,
    authorities: Mapping[tuple[str, str], str],
    not_renewed: bool,
    now: datetime,
    on_read: Callable[[int], None],
) -> AsyncIterator[Row]:
    """The certificates among the orders that the filter chooses, as they come.

    With `not_renewed` they come at the end: only those that have no successor. `on_read` is called with the number of
    orders that were read so far.
    """
    renewals, kept = Renewals(), []
    read = 0
    async for order in orders:
        read += 1
        on_read(read)
        row = row_of(order, authorities, now=now)
        if row is None:
            continue
        if not_renewed:
            renewals.note(row)
        if chosen.matches(row, now=now):
            if not_renewed:
                kept.append(row)
            else:
                yield row
    for row in kept:
        if not renewals.has_successor(row):
            yield row


def list_orders(
    cluster: Cluster, chosen: Filter, namespace: str | None, *, on_unreadable: Callable[[Unreadable], None]
) -> AsyncIterator[ListedOrder]:
    """The orders with certificates, as far as the API server can choose them. Raises ClusterError."""
    fields = ["status.state=valid"]
    for field, key in (("spec.profileRef.name", chosen.profile), ("spec.accountRef.name", chosen.account)):
        if key is not None:
            namespace = key[0]
            fields.append(f"{field}={key[1]}")
    return list_all(cluster, LISTED_ORDERS, namespace, fields=",".join(fields), on_unreadable=on_unreadable)


async def authority_names(cluster: Cluster, namespace: str | None) -> dict[tuple[str, str], str]:
    """The names of CAs by namespace and key identifier. Raises ClusterError."""
    listing = await cluster.list(AUTHORITIES, namespace)
    return {(each.metadata.namespace, key_id): each.metadata.name for each in listing.items for key_id in each.key_ids}


async def accounts_of(cluster: Cluster, credential: Key, namespace: str | None) -> frozenset[Key]:
    """The accounts of a credential. Raises ClusterError."""
    fields = f"spec.externalAccount.namespace={credential[0]},spec.externalAccount.name={credential[1]}"
    listing = await cluster.list(ACCOUNTS, namespace, fields=fields)
    return frozenset((each.metadata.namespace, each.metadata.name) for each in listing.items)
