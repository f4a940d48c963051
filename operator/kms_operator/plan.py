"""What a reconciler decides. A plan touches nothing: `kms_operator.apply` carries it out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from kms.contract import DURATION_SHORTENED, READY, RENEWAL_DUE, WARNINGS
from kms.resources.kinds import Kind
from kms.resources.meta import Condition, Resource, Struct, condition, with_condition

_ABNORMAL = frozenset({DURATION_SHORTENED, RENEWAL_DUE, WARNINGS})
"""Conditions that are True where something is wrong, and absent otherwise."""
RESYNC = timedelta(seconds=60)
"""How often a resource is reconciled for which something is missing."""
REREAD = timedelta(seconds=8)
"""How often objects of users are read that a resource names, or that are in its way: they are not watched."""
READ_PACE = timedelta(milliseconds=100)
"""Between two of these reads where there are many, so that they stay within what an API server answers anyway."""


FORBIDDEN = "Forbidden"
REFUSED = "Refused"
UNAVAILABLE = "Unavailable"
"""Reasons for what the API server refuses: RBAC, a quota or admission; a schema; and a webhook that does not answer."""

SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
"""The reason where a Secret that a resource names, or the key in it, is missing."""

QUOTED = 400
"""Characters of an annotation, or of an answer of the API server, that a condition quotes."""


@dataclass(frozen=True, slots=True)
class Event:
    """An Event to post on the reconciled resource. Its message must not contain secrets."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """A condition as a reconciler states it; `merge_conditions` adds times and generation."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    type: str = READY


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object and its kind.

    A write that the API server refuses stops the later ones of the same `part` of a plan, and no others.
    """

    kind: Kind[Any]
    object: Resource
    part: str = ""

    def __str__(self) -> str:
        """For people: `Secret pki/web-eab`."""
        metadata = self.object.metadata
        return f"{self.kind.kind} {'/'.join(filter(None, (metadata.namespace, metadata.name)))}"


@dataclass(frozen=True, slots=True)
class Denial:
    """What the API server answered instead of reading or writing an object: a reason for a condition, and why."""

    reason: str
    answer: str

    def __str__(self) -> str:
        """The answer, as far as a condition quotes it."""
        return self.answer if len(self.answer) <= QUOTED else f"{self.answer[:QUOTED]}..."


@dataclass(frozen=True, slots=True)
class Refusal:
    """A write or deletion that the API server refused."""

    manifest: Manifest
    denial: Denial

    @property
    def reason(self) -> str:
        """The reason for a condition."""
        return self.denial.reason

    @property
    def message(self) -> str:
        """The object and the answer, which says what refuses it: `Secret pki/web-eab: ...`."""
        return f"{self.manifest}: {self.denial}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The objects to delete and to write, the status to state, and when to reconcile again.

    Carried out in this order: `delete` and `apply` one by one, `status`, `events`. Every write is a compare-and-swap:
    an object without resourceVersion must not exist yet, one with a resourceVersion must be unchanged. If a write
    loses, the resource is reconciled again. If one is refused, the later ones of its part are left out.
    """

    delete: tuple[Manifest, ...] = ()
    apply: tuple[Manifest, ...] = ()
    status: Struct | None = None
    events: tuple[Event, ...] = ()
    requeue_at: datetime | None = None
    on_refusals: Callable[[Sequence[Refusal]], Plan] | None = None
    """If something was refused, status and events come from the plan that this returns for the refusals. If None, the
    status is not written then."""
    check_optional_kinds: bool = False
    """Whether to check at once if optional kinds have become available."""
    look: bool = False
    """Whether to look at the issuer of the resource, an external CA (`kms_operator.observer`)."""


def ready(reason: str, message: str) -> ConditionUpdate:
    """Ready is True."""
    return ConditionUpdate("True", reason, message)


def not_ready(reason: str, message: str) -> ConditionUpdate:
    """Ready is False; `message` says why and, where possible, what to do."""
    return ConditionUpdate("False", reason, message)


def with_refusals(update: ConditionUpdate, refusals: Sequence[Refusal]) -> ConditionUpdate:
    """Return the condition, which also says what the API server has refused; that does not change its reason."""
    return replace(update, message="; ".join((update.message, *(each.message for each in refusals))))


def merge_conditions(
    old: Sequence[Condition],
    updates: Iterable[ConditionUpdate],
    *,
    generation: int,
    now: datetime,
    keep: Collection[str] = (),
) -> tuple[Condition, ...]:
    """Return the new conditions, in order of type.

    `lastTransitionTime` changes only with the status. Old conditions without an update are dropped, since the operator
    is the only writer of these conditions, except the types in `keep`: another reconciler of the same resource states
    them.
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


def carried_out(before: int | None, generation: int, *, complete: bool) -> int:
    """Return status.observedGeneration: the newest generation that was carried out as a whole, 0 if none was.

    Programs that deploy compare it with metadata.generation, and then believe Ready. So it stays at that of `before`
    while a part of the spec is not carried out that Ready says nothing of. The conditions have the new generation.
    """
    if complete:
        return generation
    return before if before is not None and before <= generation else 0


def reread_interval(count: int) -> timedelta:
    """Return when to read `count` objects again that the operator does not watch: the more there are, the later."""
    paced: timedelta = READ_PACE * count
    return max(REREAD, paced)


def transition_events(old: Sequence[Condition], update: ConditionUpdate) -> tuple[Event, ...]:
    """Return the Event for a condition whose status or reason changes; none where both stay the same.

    It warns of what is wrong. Of what is Unknown, nobody knows that.
    """
    before = condition(old, update.type)
    if before is not None and (before.status, before.reason) == (update.status, update.reason):
        return ()
    is_wrong = update.status == ("True" if update.type in _ABNORMAL else "False")
    return (Event(update.reason, update.message, "Warning" if is_wrong else "Normal"),)


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the first of these moments; None if there is none."""
    return min((each for each in moments if each is not None), default=None)
