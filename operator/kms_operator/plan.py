"""What a reconciliation decides. Nothing here touches the cluster: `kms_operator.apply` carries an outcome out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from kms.contract import READY
from kms.resources.core import Secret
from kms.resources.kinds import Kind
from kms.resources.meta import Condition, ObjectMeta, Resource, Struct, condition, with_condition


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a person would want to know; becomes an Event. Never carries anything secret."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """One condition as a reconciler states it; times and generation are filled in by `merge_conditions`."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    type: str = READY


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object that is no Secret, and its kind."""

    kind: Kind[Any]
    object: Resource


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server did not let us write or delete, and what it said."""

    manifest: Manifest
    forbidden: bool
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What must become true.

    Carried out in this order: `withdraw`, `delete`, `apply` and `objects` one by one, `status`, `events`. Every write
    is a compare-and-swap: a Secret in `apply` without a resourceVersion must not exist yet, one with it must be
    unchanged, and so must one in `delete`. The same holds for `objects` and `withdraw`,     no Secrets. Whoever loses reconciles again. `again` is when to look next unasked.
    """

    delete: tuple[Secret, ...] = ()
    apply: tuple[Secret, ...] = ()
    status: Struct | None = None
    events: tuple[Event, ...] = ()
    again: datetime | None = None
    withdraw: tuple[Manifest, ...] = ()
    objects: tuple[Manifest, ...] = ()


def ready(reason: str, message: str) -> ConditionUpdate:
    """The resource does what it is for."""
    return ConditionUpdate("True", reason, message)


def not_ready(reason: str, message: str) -> ConditionUpdate:
    """The resource does not do what it is for; `message` says why and, where there is one, the fix."""
    return ConditionUpdate("False", reason, message)


def merge_conditions(
    old: Sequence[Condition],
    updates: Iterable[ConditionUpdate],
    *,
    generation: int,
    now: datetime,
    keep: Collection[str] = (),
) -> tuple[Condition, ...]:
    """Conditions that state the updates, in order of type.

    `lastTransitionTime` moves only where a status changes. Conditions that no update is about are dropped, since
    the operator is the only writer of these kinds' conditions; but for the types in `keep`, which another
    reconciliation of the same resource states.
    """
    conditions = tuple(each for each in old if each.type in keep)
    for update in updates:
        stated = Condition(
            type=update.type,
            status=update.status,
            reason=update.reason,
            message=update.message,
            last_transition_time=now,
            observed_generation=generation,
        )
        before = condition(old, update.type)
        conditions += with_condition((before,) if before else (), stated)
    return tuple(sorted(conditions, key=lambda each: each.type))


def transition_events(old: Sequence[Condition], update: ConditionUpdate) -> tuple[Event, ...]:
    """The event that `update` is worth: none where the resource was in that state for that reason already."""
    before = condition(old, update.type)
    if before is not None and (before.status, before.reason) == (update.status, update.reason):
        return ()
    return (Event(update.reason, update.message, "Normal" if update.status == "True" else "Warning"),)


def same_secret(existing: Secret | None, wanted: Secret) -> bool:
    """Whether `existing` holds what we want: our keys, labels, annotations and owner; others' additions are left alone."""
    if existing is None:
        return False
    return (
        existing.data.items() >= wanted.data.items()
        and existing.metadata.labels.items() >= wanted.metadata.labels.items()
        and existing.metadata.annotations.items() >= wanted.metadata.annotations.items()
        and set(_owner_uids(existing)) >= set(_owner_uids(wanted))
    )


def with_version_of(wanted: Secret, existing: Secret | None) -> Secret:
    """`wanted`, to be written only over `existing`, or only where nothing is yet when `existing` is None."""
    version = existing.metadata.resource_version if existing else ""
    metadata: ObjectMeta = msgspec.structs.replace(wanted.metadata, resource_version=version)
    return msgspec.structs.replace(wanted, metadata=metadata, type=existing.type if existing else wanted.type)


def secrets_to_write(existing: Secret | None, wanted: Secret) -> tuple[Secret, ...]:
    """What to apply so that `wanted` holds: nothing where it does already."""
    return () if same_secret(existing, wanted) else (with_version_of(wanted, existing),)


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of these moments; None where there is none."""
    return min((each for each in moments if each is not None), default=None)


def _owner_uids(secret: Secret) -> list[str]:
    return [each.uid for each in secret.metadata.owner_references]
