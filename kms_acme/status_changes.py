"""Changes of orders and accounts by an administrator: what `kms-acme revoke` and `kms-acme account` have in common.

Neither needs a server: they apply the server's own pure transitions and replace the status, guarded by resourceVersion,
with the rights of a kubeconfig. Every server receives the change from its watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.retry import Attempts
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import Kind
from kms.resources.meta import Unreadable, key_of
from kms.resources.orders import ACMEOrder

_AT_ONCE = 8
"""Objects that are written at the same time."""

T = TypeVar("T", bound=ACMEAccount | ACMEOrder)


class NotChanged(Exception):
    """An object cannot be changed, or does not exist; the message says why."""


async def list_objects(
    cluster: Cluster,
    kind: Kind[T],
    namespace: str | None,
    *,
    on_unreadable: Callable[[Unreadable], None],
    labels: str = "",
    fields: str = "",
) -> AsyncIterator[T]:
    """The objects of the kind with these labels and fields. Raises ClusterError.

    `on_unreadable` is called with each object that does not fit its model.
    """
    async for page in cluster.list_pages(kind, namespace, labels=labels, fields=fields):
        for unreadable in page.unreadable:
            on_unreadable(unreadable)
        for each in page.items:
            yield each


async def change_each(
    objects: Sequence[T],
    change: Callable[[T], Awaitable[None]],
    *,
    on_done: Callable[[T, str | None], None],
) -> int:
    """Change these objects, several at a time, and return the number of failures.

    `on_done` is called with each object, and with the error where changing it failed.
    """
    waiting = iter(objects)
    failures = 0

    async def work() -> None:
        nonlocal failures
        for each in waiting:
            try:
                await change(each)
            except (errors.ClusterError, NotChanged) as error:
                failures += 1
                on_done(each, str(error))
            else:
                on_done(each, None)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return failures


async def replace_status(cluster: Cluster, kind: Kind[T], current: T, transition: Callable[[T], T]) -> T:
    """Apply the transition to the object and write its status, unless that changes nothing. Returns the object.

    After a conflict the transition is applied to the newer version. Raises NotChanged if the object was deleted or
    changes too often, ClusterError, and what the transition raises.
    """
    noun = kind.kind.removeprefix("ACME").lower()
    async for _ in Attempts():
        wanted = transition(current)
        if wanted == current:
            return wanted
        try:
            await cluster.replace_status(kind, wanted)
        except errors.Conflict:
            latest = await cluster.get(kind, *key_of(current))
            if latest.metadata.uid != current.metadata.uid:
                raise NotChanged(f"the {noun} was deleted, and another one has its name") from None
            current = latest
        else:
            return wanted
    raise NotChanged(f"the {noun} changes too often; try again")
