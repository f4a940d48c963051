"""Objects that one resource has in many places: cert-manager's issuers of a profile, the published root of a CA.

Both reconcilers choose namespaces, check that the owner may have objects there, never change objects of others, delete
obsolete objects, and report all places in one condition. A place that refuses its object does not stop the others.

An object beyond the namespace of its owner is a privilege: an issuer's solvers name Secrets that cert-manager reads
with its own rights, and a published root makes workloads of other teams trust a CA. So the operator's settings name the
namespaces whose resources may have objects elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from kms.resources.kinds import NAMESPACES, Kind
from kms.resources.meta import AllowedNamespaces, Key, Resource, key_of
from kms.resources.secret_names import COMPONENT
from kms_operator.objects import belongs_to, describe_owner
from kms_operator.plan import FORBIDDEN, RESYNC, ConditionUpdate, Manifest, Refusal, reread_interval
from kms_operator.snapshot import Snapshot

P = TypeVar("P")

NOT_OURS = "NotOurs"
NOT_ALLOWED = "NamespaceNotAllowed"
NO_NAMESPACE = "NoNamespaceSelected"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one object is wanted; `namespace` is empty for cluster-scoped kinds."""

    kind: Kind[Any]
    namespace: str
    name: str

    @property
    def key(self) -> Key:
        """(namespace, name) of the object."""
        return self.namespace, self.name

    def __str__(self) -> str:
        """For people: `ConfigMap pki/example-ca`."""
        return f"{self.kind.kind} {'/'.join(filter(None, self.key))}"


class PlacementRefused(Exception):
    """Why an object is missing at one place, or at all places if none could be chosen."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the objects of one owner may go, and the messages of its condition where they may not."""

    beyond: bool
    """Whether the operator's settings allow objects beyond the owner's namespace."""
    only_here: str
    namespaced_only: str

    def check_beyond(self) -> None:
        """Raise PlacementRefused if objects must stay in the namespace of their owner."""
        if not self.beyond:
            raise PlacementRefused(NOT_ALLOWED, self.only_here)

    def check_cluster(self, snapshot: Snapshot) -> None:
        """Raise PlacementRefused if there must be no cluster-scoped objects."""
        if snapshot.settings.watch_namespaces:
            message = (
                "the operator watches only some namespaces (--watch-namespace, in the chart watchNamespaces);"
                f" {self.namespaced_only}"
            )
            raise PlacementRefused(NOT_ALLOWED, message)
        self.check_beyond()


def selects(rule: AllowedNamespaces, namespace: str, *, home: str, snapshot: Snapshot) -> bool:
    """Whether `rule`, of a resource in namespace `home`, selects this namespace."""
    found = snapshot.get(NAMESPACES, ("", namespace))
    if found is None and rule.from_ == "Selector":
        return False  # NotIn and DoesNotExist hold where there is no label, so a namespace must be known to be selected
    return rule.selects(namespace, found.metadata.labels if found else {}, home=home)


def select_namespaces(rule: AllowedNamespaces, reach: Reach, *, home: str, field: str, snapshot: Snapshot) -> list[str]:
    """Return the namespaces that `rule` selects, without those that are being deleted.

    Raises PlacementRefused if they are out of reach, or if there are none; `field` is where the rule is.
    """
    if rule.from_ == "Same":
        return [home]
    reach.check_beyond()
    names = (each.metadata.name for each in snapshot.all(NAMESPACES) if each.metadata.deletion_timestamp is None)
    selected = [each for each in sorted(names) if selects(rule, each, home=home, snapshot=snapshot)]
    if not selected:
        raise PlacementRefused(NO_NAMESPACE, f"no namespace is selected ({field})")
    return selected


def left_out(rule: AllowedNamespaces, selected: Collection[str], *, home: str, field: str) -> str:
    """Return the end of a message if a selector leaves out the owner's own namespace; empty otherwise."""
    if rule.from_ != "Selector" or home in selected:
        return ""
    return f"; not in namespace {home}, whose labels {field} does not select"


def check_available(placement: Placement, snapshot: Snapshot) -> None:
    """Raise PlacementRefused if the kind is not available."""
    if unavailability := snapshot.unavailable(placement.kind):
        raise PlacementRefused(unavailability.reason, unavailability.message)


def find_own(placement: Placement, owner: Resource, snapshot: Snapshot) -> Any | None:
    """Return the object at the placement, if it exists. Raises PlacementRefused if it is not the owner's.

    Also if it could not be read.
    """
    if (denial := snapshot.denial(placement.kind, placement.key)) is not None:
        raise PlacementRefused(denial.reason, f"{placement} cannot be read: {denial}")
    existing = snapshot.get(placement.kind, placement.key)
    if existing is not None and not belongs_to(existing, owner):
        raise PlacementRefused(NOT_OURS, f"{placement} {describe_owner(existing)}; delete it, or choose another name")
    return existing


def plan_each(
    places: Iterable[P], plan_one: Callable[[P], Iterable[Manifest]]
) -> tuple[list[Manifest], list[PlacementRefused]]:
    """Collect what to write at all places, each a part of its own.

    A place that raises PlacementRefused keeps what it yielded before.
    """
    manifests: list[Manifest] = []
    refused: list[PlacementRefused] = []
    for number, each in enumerate(places):
        try:
            for manifest in plan_one(each):
                manifests.append(replace(manifest, part=f"place {number}"))  # noqa: PERF401 - keeps what came before
        except PlacementRefused as error:
            refused.append(error)
    return manifests, refused


def find_leftovers(
    owner: Resource, snapshot: Snapshot, kinds: Iterable[Kind[Any]], component: str, *, keep: Collection[Placement]
) -> tuple[Manifest, ...]:
    """Return the objects of `owner` with that component that are at no placement of `keep`, in order of `kinds`."""
    kept = {(each.kind.plural, each.key) for each in keep}
    return tuple(
        Manifest(kind, each, part=f"leftover {kind.plural} {each.metadata.namespace}/{each.metadata.name}")
        for kind in kinds
        if snapshot.unavailable(kind) is None
        for each in snapshot.owned_by(kind, owner)
        if belongs_to(each, owner)
        and each.metadata.labels.get(COMPONENT) == component
        and (kind.plural, key_of(each)) not in kept
    )


def refused_placement(refusal: Refusal, *, hint: str = "") -> PlacementRefused:
    """Return what a condition says of a refused write; `hint` says what helps if a permission is missing."""
    suffix = f"; {hint}" if hint and refusal.reason == FORBIDDEN else ""
    return PlacementRefused(refusal.reason, refusal.message + suffix)


def recheck_interval(refused: Iterable[PlacementRefused]) -> timedelta:
    """Return when to look again: soon if an object of others is in the way, which the operator does not watch."""
    in_the_way = sum(each.reason == NOT_OURS for each in refused)
    return reread_interval(in_the_way) if in_the_way else RESYNC


def summarize(type_: str, refused: Sequence[PlacementRefused], *, success: tuple[str, str]) -> ConditionUpdate:
    """Return one condition for all places: the first refusal and how many more there are, or the success."""
    if not refused:
        return ConditionUpdate("True", *success, type_)
    others = len({each.message for each in refused}) - 1
    message = f"{refused[0].message} (and {others} more)" if others else refused[0].message
    return ConditionUpdate("False", refused[0].reason, message, type_)
