"""Finds objects by what people know of them, and reads what their stories need."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from typing import TypeVar

from acme_server.orders.policy import Objection
from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.list_all import list_all
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, CREDENTIALS, ORDERS, PROFILES, Kind
from kms.resources.meta import Key, Resource, key_of
from kms.resources.orders import ACCOUNT, ACMEOrder, OrderState, with_authorizations
from kms_acme.configuration import read_configuration
from kms_acme.explain import Story, explain_account, explain_name, explain_order
from kms_acme.policy_test import Request, evaluate

T = TypeVar("T", bound=Resource)

_MOST_ORDERS = 2_000
"""Orders of an account that are counted."""


class NotFound(Exception):
    """No such object, or several; the message says which."""


async def find_object(cluster: Cluster, kind: Kind[T], namespace: str | None, name: str) -> T:
    """The object of that name, in any namespace if `namespace` is None. Raises NotFound, and ClusterError."""
    if namespace is not None:
        try:
            return await cluster.get(kind, namespace, name)
        except errors.NotFound:
            raise NotFound(f"there is no {kind.kind} {namespace}/{name}") from None
    found = (await cluster.list(kind, fields=f"metadata.name={name}")).items
    return _only(found, kind, name)


def _only(found: tuple[T, ...], kind: Kind[T], what: str) -> T:
    if not found:
        raise NotFound(f"there is no {kind.kind} {what} in any namespace")
    if len(found) > 1:
        keys = ", ".join("/".join(key_of(each)) for each in found)
        raise NotFound(f"there are several {kind.kinds} {what}: {keys}; set --namespace")
    return found[0]


async def find_order_of_serial(cluster: Cluster, namespace: str | None, serial: str) -> ACMEOrder:
    """The order whose certificate has this serial number, in hexadecimal. Raises NotFound, and ClusterError."""
    found = (await cluster.list(ORDERS, namespace, fields=f"status.serialNumber={serial}")).items
    if not found:
        raise NotFound(f"no ACMEOrder has a certificate with serial number {serial}; orders are deleted after it ends")
    return _only(found, ORDERS, f"with serial number {serial}")


async def account_of(cluster: Cluster, order: ACMEOrder) -> ACMEAccount | None:
    """The account of an order; None: it is gone, or may not be read. Raises ClusterError."""
    return await _if_there(cluster, ACCOUNTS, (order.metadata.namespace, order.spec.account_ref.name))


async def order_story(cluster: Cluster, order: ACMEOrder, *, clock: Clock) -> Story:
    """The story of an order. Raises ClusterError."""
    namespace = order.metadata.namespace
    account, profile = await asyncio.gather(
        _if_there(cluster, ACCOUNTS, (namespace, order.spec.account_ref.name)),
        _if_there(cluster, PROFILES, order.profile_key),
    )
    return explain_order(with_authorizations(order), account, profile, now=clock())


async def account_story(cluster: Cluster, account: ACMEAccount) -> Story:
    """The story of an account. Raises ClusterError."""
    namespace, name = key_of(account)
    credential = account.credential
    profile, followed, page = await asyncio.gather(
        _if_there(cluster, PROFILES, (namespace, account.spec.profile_ref.name)),
        _if_there(cluster, CREDENTIALS, credential),
        cluster.page(ORDERS, namespace, labels=f"{ACCOUNT}={name}", limit=_MOST_ORDERS),
    )
    counts: Counter[OrderState] = Counter(with_authorizations(each).status.state for each in page.items)
    created = [each.metadata.creation_timestamp for each in page.items]
    latest: datetime | None = max((each for each in created if each is not None), default=None)
    return explain_account(account, followed, profile, counts, latest=latest)


async def name_story(
    cluster: Cluster, name: str, profile: Key, credential: Key | None, *, objection: Objection, clock: Clock
) -> Story:
    """The story of a name. Raises ClusterError, and Undecided if the profile cannot be used."""
    now = clock()
    fields = f"spec.profileRef.name={profile[1]}"
    credentials = (await cluster.list(CREDENTIALS, fields=fields)).items
    keys = [key_of(each) for each in credentials if each.profile_key == profile]
    configuration = await read_configuration(cluster, profile[0], [credential] if credential is not None else keys)
    verdict = evaluate(configuration, Request(profile, (name,), credential), now=now, objection=objection)
    each_verdict = {
        key: evaluate(configuration, Request(profile, (name,), key), now=now, objection=objection)
        for key in keys
        if credential is None and key in configuration.credentials
    }
    orders = [
        order
        async for order in list_all(cluster, ORDERS, profile[0], on_unreadable=lambda _: None)
        if order.status.certificate is not None
        and order.profile_key == profile
        and any(each.value == name for each in order.spec.identifiers)
    ]
    orders.sort(key=lambda each: each.status.issued_at or now, reverse=True)
    return explain_name(name, verdict, each_verdict, orders, now=now)


async def _if_there(cluster: Cluster, kind: Kind[T], key: Key | None) -> T | None:
    """The object; None if it does not exist or may not be read."""
    if key is None:
        return None
    try:
        return await cluster.get(kind, *key)
    except (errors.NotFound, errors.Forbidden, errors.Undecodable):
        return None
