"""What pages say of objects that are still being read, may not be read, or are outdated. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kms_acme.console.collection import Collection

_OUTAGE = 15.0
"""Seconds without a watch that nobody is told of: the API server ends each after some minutes."""


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence about what the page does not show."""

    kind: Literal["reading", "forbidden", "problem"]
    text: str


def note_of(collection: Collection[Any, Any]) -> Iterator[Note]:
    """The notes about one kind."""
    kind = collection.kind.kind
    where = f" in namespace {collection.namespace}" if collection.namespace is not None else ""
    if collection.is_forbidden:
        hint = "" if collection.namespace is not None else " With -n NAMESPACE, the console reads one namespace only."
        yield Note("forbidden", f"You may not read {_plural(kind)}{where}: {collection.problem}.{hint}")
        return
    if collection.problem is not None:
        yield Note("problem", f"{_plural(kind)}{where} cannot be read now: {collection.problem}.")
    elif not collection.is_complete:
        yield Note("reading", f"Still reading {_plural(kind)}{where}: {collection.read:,} so far.")
    elif collection.outage_seconds() > _OUTAGE:
        yield Note("problem", f"Changes of {_plural(kind)} do not arrive now; what you see may be outdated.")
    if collection.left_out:
        yield Note("problem", f"{collection.left_out:,} {_plural(kind)} are not shown: there are too many.")
    for (namespace, name), why in list(collection.unreadable.items()):
        yield Note("problem", f"{kind} {namespace}/{name} is left out, since it cannot be read: {why}.")


def _plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
