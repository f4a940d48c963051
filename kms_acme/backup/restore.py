"""Writes the objects of a backup into a cluster, in an order in which no key is lost.

A CertificateAuthority without status and without a key gets a new key. So keys come first, and the operator gets a
moment to see them; it finds them by the namespace and name of their owner, because UIDs differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Any

import msgspec

from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.contract import READY, Program, lease_name
from kms.resources.kept import parse_time
from kms.resources.kinds import LEASES, NAMESPACES
from kms.resources.meta import Key, key_of
from kms_acme.backup.chains import ChainFault, is_genuine
from kms_acme.backup.collect import KEYS_SELECTOR
from kms_acme.backup.contents import AUTHORITY, CHAIN, CONFIGURATION, RECORD, SECRET, Entry, Stored, StoredMeta
from kms_acme.backup.plan import Present, Step, Target, key_of_authority, published_key

Sleep = Callable[[float], Awaitable[None]]
Progress = Callable[[str], None]
_AT_ONCE = 16
_TRIES = 5


class NotRestored(Exception):
    """Something cannot be restored; the message is a sentence without its full stop."""


@dataclass(frozen=True, slots=True)
class Written:
    """Accounts, orders and chains: how many were created, were there already, and failed."""

    created: int = 0
    present: int = 0
    failed: int = 0


async def missing_namespaces(cluster: Cluster, names: Iterable[str]) -> list[str]:
    """The namespaces that do not exist. Raises ClusterError."""
    missing = []
    for name in sorted(set(names)):
        try:
            await cluster.get(NAMESPACES, "", name)
        except errors.NotFound:
            missing.append(name)
    return missing


async def read_present(cluster: Cluster, namespaces: Iterable[str], target: Target) -> Present:
    """The keys, configuration and revocations of the cluster in these namespaces. Raises ClusterError."""
    found: dict[tuple[str, Key], Stored] = {}
    release = ((SECRET, target.namespace, KEYS_SELECTOR), (RECORD, target.namespace, ""))
    places = [(kind, namespace, "") for kind in CONFIGURATION for namespace in sorted(set(namespaces))]
    for kind, namespace, labels in (*release, *places):
        async for page in cluster.list_pages(kind, namespace, labels=labels):
            for unreadable in page.unreadable:
                name = f"{unreadable.metadata.namespace}/{unreadable.metadata.name}"
                raise NotRestored(f"{kind.kind} {name} of the cluster cannot be read: {unreadable}")
            found.update(((kind.plural, key_of(each)), each) for each in page.items)
    return found


async def lacking_chains(cluster: Cluster, faults: Iterable[ChainFault]) -> list[ChainFault]:
    """Those of these chains that the cluster does not have either. Raises ClusterError."""
    return [each for each in faults if not await _has_chain(cluster, each.key)]


async def _has_chain(cluster: Cluster, key: Key) -> bool:
    try:
        return is_genuine(await cluster.get(CHAIN, *key))
    except (errors.NotFound, errors.Unserved):
        return False


async def is_running(cluster: Cluster, target: Target, program: Program, *, clock: Clock) -> bool:
    """Whether a replica of the program holds its Lease. Raises ClusterError."""
    try:
        lease = (await cluster.get(LEASES, target.namespace, lease_name(target.service_name, program))).spec
    except errors.NotFound:
        return False
    renewed: datetime | None = parse_time(lease.renew_time)
    return bool(
        lease.holder_identity
        and renewed is not None
        and clock() < renewed + timedelta(seconds=lease.lease_duration_seconds or 0)
    )


async def write_steps(
    cluster: Cluster, steps: Sequence[Step], *, pause: float, on_progress: Progress, sleep: Sleep = asyncio.sleep
) -> None:
    """Carry out the steps; none of them is `refuse`. Raises NotRestored and ClusterError.

    `pause` are the seconds that a running operator has to see the keys before their CAs exist.
    """
    changes = [each for each in steps if each.verb in {"create", "replace"}]
    keys = [each for each in changes if each.entry.kind in {SECRET, RECORD}]
    await _write_all(cluster, keys, on_progress)
    if pause and any(each.entry.kind is SECRET for each in keys):
        on_progress("waiting for the operator to see the keys")
        await sleep(pause)
    for kind in CONFIGURATION:
        await _write_all(cluster, [each for each in changes if each.entry.kind is kind], on_progress)


async def _write_all(cluster: Cluster, steps: Sequence[Step], on_progress: Progress) -> None:
    for step in steps:
        entry = step.entry
        try:
            if step.verb == "create":
                created = await cluster.create(entry.kind, _without_cluster(entry.object))
                if entry.kind is AUTHORITY:
                    await _restore_status(cluster, entry, created)
            elif step.existing is not None:
                await cluster.replace(entry.kind, _over(entry.object, step.existing))
        except (errors.Conflict, errors.AlreadyExists):
            raise NotRestored(f"{entry} was changed meanwhile; run the command again") from None
        if entry.kind is not RECORD:
            on_progress(f"{entry}: {step.verb}d")


def _without_cluster(stored: Stored) -> Stored:
    """The object as it is created: without status and UID."""
    metadata = stored.metadata
    fresh = StoredMeta(
        name=metadata.name, namespace=metadata.namespace, labels=metadata.labels, annotations=metadata.annotations
    )
    return msgspec.structs.replace(stored, metadata=fresh, status=None)


def _over(stored: Stored, existing: Stored) -> Stored:
    """The object in the place of this version of the existing one, which keeps its labels and annotations."""
    metadata = msgspec.structs.replace(
        existing.metadata,
        labels={**existing.metadata.labels, **stored.metadata.labels},
        annotations={**existing.metadata.annotations, **stored.metadata.annotations},
    )
    return msgspec.structs.replace(existing, metadata=metadata, spec=stored.spec, data=stored.data)


async def _restore_status(cluster: Cluster, entry: Entry, created: Stored) -> None:
    """Give the CA the status of the backup but for conditions: not every Secret has former roots and keys.

    The operator may write the status at the same time; what it has written stays.
    """
    kept = {key: value for key, value in (entry.object.status or {}).items() if key not in _OF_OPERATOR}
    if not kept:
        return
    current = created
    for _ in range(_TRIES):
        wanted = {**kept, **(current.status or {})}
        try:
            await cluster.replace_status(entry.kind, msgspec.structs.replace(current, status=wanted))
        except errors.Conflict:
            current = await cluster.get(entry.kind, *entry.key)
        else:
            return
    raise NotRestored(f"{entry} changes too often; its former roots are not published. Run the command again")


_OF_OPERATOR = frozenset({"conditions", "observedGeneration"})


async def write_inventory(cluster: Cluster, entries: Iterator[Entry], *, on_failure: Progress) -> Written:
    """Create chains, accounts and orders with their status, several at a time. No server may run.

    No order is written at the same time as a chain: with the CRDs of an earlier release it would lose its reference.
    `on_failure` is called with a sentence about each that the API server refuses; others go on. Raises ClusterError
    other than refusals.
    """
    total = Written()
    for _, group in groupby(entries, key=lambda entry: entry.kind is CHAIN):
        while batch := list(islice(group, _AT_ONCE)):
            for each in await asyncio.gather(*(_write_with_status(cluster, one, on_failure) for one in batch)):
                total = Written(total.created + each.created, total.present + each.present, total.failed + each.failed)
    return total


_DEFAULT_STATUS = {"state": "pending"}
"""The status that the API server gives an order that is created."""


async def _write_with_status(cluster: Cluster, entry: Entry, on_failure: Progress) -> Written:
    if entry.kind is CHAIN and not is_genuine(entry.object):
        if await _has_chain(cluster, entry.key):
            return Written(present=1)
        on_failure(f"{entry} is not restored: that of the backup was changed, so no server would use it")
        return Written(failed=1)
    try:
        try:
            current, is_new = await cluster.create(entry.kind, _without_cluster(entry.object)), True
        except errors.AlreadyExists:
            current, is_new = await cluster.get(entry.kind, *entry.key), False
        # An earlier restore may have ended between both writes; no server runs that would have changed the status. But
        # an object that says something else of itself is another one: the status is not about that.
        is_same = is_new or current.spec == entry.object.spec
        if entry.kind is CHAIN and not is_same and not is_genuine(current):
            on_failure(f"{entry} is not restored: the one in the cluster was changed; delete it, and restore again")
            return Written(failed=1)
        if entry.object.status and is_same and (is_new or not current.status or current.status == _DEFAULT_STATUS):
            await cluster.replace_status(entry.kind, msgspec.structs.replace(current, status=entry.object.status))
    except (errors.Invalid, errors.NotFound, errors.Conflict) as error:
        on_failure(f"{entry} is not restored: {error}")
        return Written(failed=1)
    return Written(created=1) if is_new else Written(present=1)


async def wait_until_ready(
    cluster: Cluster,
    authorities: Sequence[Entry],
    backup: Sequence[Entry],
    *,
    wait: float,
    on_progress: Progress,
    left: Collection[str] = (),
    sleep: Sleep = asyncio.sleep,
    pace: float = 0.5,
) -> None:
    """Wait until these CAs are Ready with the keys of the backup. Raises NotRestored after `wait` seconds.

    `on_progress` is called with each state on the way. Those that were `left` as they are may be deleted meanwhile.
    """
    states: dict[str, str] = {}
    for attempt in range(int(wait / pace) + 1):
        if attempt:
            await sleep(pace)
        for entry in authorities:
            state = await _state(cluster, entry, backup, may_go=str(entry) in left)
            if states.get(str(entry)) != state:
                on_progress(f"{entry}: {state}")
                states[str(entry)] = state
        if all(each in _SETTLED for each in states.values()):
            return
    waiting = "; ".join(f"{name}: {state}" for name, state in states.items() if state not in _SETTLED)
    raise NotRestored(f"Not Ready within {timedelta(seconds=int(wait))}: {waiting}")


_IS_READY = "Ready, with the key of the backup"
_IS_GONE = "deleted meanwhile"
_SETTLED = (_IS_READY, _IS_GONE)


async def _state(cluster: Cluster, entry: Entry, backup: Sequence[Entry], *, may_go: bool) -> str:
    try:
        found = await cluster.get(AUTHORITY, *entry.key)
    except errors.NotFound:
        if may_go:
            return _IS_GONE
        raise NotRestored(f"{entry} was deleted") from None
    stated = ready_condition(found)
    if stated is None or (stated.get("observedGeneration") or 0) < found.metadata.generation:
        return "waiting for the operator"
    if stated.get("status") != "True":
        return f"{stated.get('reason')}: {stated.get('message')}"
    wanted, published = key_of_authority(entry, backup), published_key(found)
    if wanted is not None and published != wanted:
        raise NotRestored(
            f"{entry} has {published}, and not {wanted} of the backup: the operator made a key before it saw that of"
            " the backup. Delete the CertificateAuthority and the Secret with its new key, and run the command again"
        )
    return _IS_READY


def ready_condition(stored: Stored) -> Mapping[str, Any] | None:
    """The condition Ready of an object; None if it has none."""
    conditions = (stored.status or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == READY), None)
