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
class Notice:
    """Something that a person would want to know; becomes an Event. Never carries anything secret."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition as a reconciler states it; times and generation are filled in by `settled`."""

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

    Carried out in this order: `withdraw`, `delete`, `apply` and `objects` one by one, `status`, `notices`. Every write
    is a compare-and-swap: a Secret in `apply` without a resourceVersion must not exist yet, one with it must be
    as it was seen, and one in `delete` goes only as it was seen. The same holds for `objects` and `withdraw`, which are
    no Secrets. Whoever loses reconciles again. `again` is when to look next unasked.
    """

    delete: tuple[Secret, ...] = ()
    apply: tuple[Secret, ...] = ()
    status: Struct | None = None
    notices: tuple[Notice, ...] = ()
    again: datetime | None = None
    withdraw: tuple[Manifest, ...] = ()
    objects: tuple[Manifest, ...] = ()


def ready(reason: str, message: str) -> Verdict:
    """The resource does what it is for."""
    return Verdict("True", reason, message)


def not_ready(reason: str, message: str) -> Verdict:
    """The resource does not do what it is for; `message` says why and, where there is one, the fix."""
    return Verdict("False", reason, message)


def settled(
    old: Sequence[Condition],
    verdicts: Iterable[Verdict],
    *,
    generation: int,
    now: datetime,
    keep: Collection[str] = (),
) -> tuple[Condition, ...]:
    """Conditions that state the verdicts, in order of type.

    `lastTransitionTime` moves only where a status changes. Conditions that no verdict is about are dropped, since
    the operator is the only writer of these kinds' conditions; but for the types in `keep`, which another
    reconciliation of the same resource states.
    """
    conditions = tuple(each for each in old if each.type in keep)
    for verdict in verdicts:
        stated = Condition(
            type=verdict.type,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message,
            last_transition_time=now,
            observed_generation=generation,
        )
        before = condition(old, verdict.type)
        conditions += with_condition((before,) if before else (), stated)
    return tuple(sorted(conditions, key=lambda each: each.type))


def announced(old: Sequence[Condition], verdict: Verdict) -> tuple[Notice, ...]:
    """The notice that `verdict` is worth: none where the resource was in that state for that reason already."""
    before = condition(old, verdict.type)
    if before is not None and (before.status, before.reason) == (verdict.status, verdict.reason):
        return ()
    return (Notice(verdict.reason, verdict.message, "Normal" if verdict.status == "True" else "Warning"),)


def same_secret(seen: Secret | None, wanted: Secret) -> bool:
    """Whether `seen` holds what we want: our keys, labels, annotations and owner; others' additions are left alone."""
    if seen is None:
        return False
    return (
        seen.data.items() >= wanted.data.items()
        and seen.metadata.labels.items() >= wanted.metadata.labels.items()
        and seen.metadata.annotations.items() >= wanted.metadata.annotations.items()
        and set(_owner_uids(seen)) >= set(_owner_uids(wanted))
    )


def as_seen(wanted: Secret, seen: Secret | None) -> Secret:
    """`wanted`, to be written only over `seen`, or only where nothing is yet when `seen` is None."""
    version = seen.metadata.resource_version if seen else ""
    metadata: ObjectMeta = msgspec.structs.replace(wanted.metadata, resource_version=version)
    return msgspec.structs.replace(wanted, metadata=metadata, type=seen.type if seen else wanted.type)


def corrected(seen: Secret | None, wanted: Secret) -> tuple[Secret, ...]:
    """What to apply so that `wanted` holds: nothing where it does already."""
    return () if same_secret(seen, wanted) else (as_seen(wanted, seen),)


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of these moments; None where there is none."""
    return min((each for each in moments if each is not None), default=None)


def _owner_uids(secret: Secret) -> list[str]:
    return [each.uid for each in secret.metadata.owner_references]
