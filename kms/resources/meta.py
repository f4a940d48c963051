"""The parts of every Kubernetes object: metadata, references, conditions.

The models of this package are immutable msgspec structs. They name the fields of `crds/` and decode straight from the
bytes of the API server; unknown fields are ignored, so that a newer CRD does not stop an older program.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

import msgspec

GROUP = "pki.kms.hanzo.ai"
VERSION = "v1alpha1"


Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""metav1.Time: a moment with its offset from UTC. One without an offset could not be compared with others."""
FreeForm = dict[str, Any]
"""A part that another program defines; `check_depth` bounds it."""

MAXIMUM_DEPTH, MAXIMUM_WIDTH = 64, 10_000
"""Levels of a free-form part, and values on one of them. A pod template, the deepest that is in use, has fifteen."""


def check_depth(*parts: object) -> None:
    """Raise ValueError if a free-form part is too deep or too wide to be written, compared and logged.

    The schema of a custom resource cannot say that: it allows ten thousand levels, and a megabyte.
    """
    level: list[object] = list(parts)
    for _ in range(MAXIMUM_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list | tuple)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
        if len(level) > MAXIMUM_WIDTH:
            raise ValueError(f"has more than {MAXIMUM_WIDTH} values on one level")
    raise ValueError(f"nested more than {MAXIMUM_DEPTH} levels deep")


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Base of all models: immutable, keyword-only, camelCase on the wire, defaults left out.

    Immutable objects that are decoded from a document have no cycles. So the garbage collector skips them: thousands of
    cached orders cost it nothing.
    """


class OwnerReference(Struct, frozen=True, kw_only=True):
    """The object whose deletion takes this one with it (same namespace only)."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct, frozen=True, kw_only=True):
    """The part of `metadata` that we read or write, without managedFields."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class Condition(Struct, frozen=True, kw_only=True):
    """One metav1.Condition. `reason` is CamelCase for programs, `message` a sentence for people."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    last_transition_time: Time
    observed_generation: int | None = None


class LocalRef(Struct, frozen=True, kw_only=True):
    """Names an object in the same namespace."""

    name: str


class NamespacedRef(Struct, frozen=True, kw_only=True):
    """Names an object in another namespace; without one, in the namespace of the object that holds the reference."""

    name: str
    namespace: str | None = None


class PartialObjectMetadata(Struct, frozen=True, kw_only=True):
    """An object of which only the metadata is known (metav1.PartialObjectMetadata)."""

    metadata: ObjectMeta


class Resource(Protocol):
    """Anything with metadata: what informers and the API client work with."""

    @property
    def metadata(self) -> ObjectMeta:
        """Name, namespace, version and the rest."""
        ...


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that does not fit its model.

    `metadata` has its name, namespace, uid, resourceVersion and labels, as far as they are readable. `field` is the
    path of the wrong field, as in `spec.expiresAt`; empty if it is not known.
    """

    metadata: ObjectMeta
    field: str
    problem: str

    def __str__(self) -> str:
        """For people and logs: `spec.expiresAt: Invalid RFC3339 encoded datetime`."""
        return f"{self.field}: {self.problem}" if self.field else self.problem


Key = tuple[str, str]
"""(namespace, name): what identifies an object among those of its kind."""


def key_of(resource: Resource) -> Key:
    """The key of the object.

    Indexes hold the keys of a hundred thousand objects in few namespaces, so the namespace is interned.
    """
    return sys.intern(resource.metadata.namespace), resource.metadata.name


def condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of that type, if it has been set."""
    return next((each for each in conditions if each.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether the condition of that type is set and `True`."""
    found = condition(conditions, type_)
    return found is not None and found.status == "True"


def with_condition(conditions: Iterable[Condition], new: Condition) -> tuple[Condition, ...]:
    """The conditions with `new` instead of the one of the same type.

    `lastTransitionTime` is kept where the status stays the same, as the Kubernetes API conventions ask.
    """
    others = tuple(each for each in conditions if each.type != new.type)
    old = condition(conditions, new.type)
    if old is not None and old.status == new.status:
        new = msgspec.structs.replace(new, last_transition_time=old.last_transition_time)
    return (*others, new)


class Selector(Struct, frozen=True, kw_only=True):
    """A label selector (metav1.LabelSelector)."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected; an empty selector selects everything."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            each.matches(labels) for each in self.match_expressions
        )


class SelectorRequirement(Struct, frozen=True, kw_only=True):
    """One line of a selector's `matchExpressions`."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels satisfy the requirement (NotIn also holds where the label is absent)."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None


class AllowedNamespaces(Struct, frozen=True, kw_only=True):
    """The namespaces that a resource selects, for EABCredentials, Issuers or trust anchors."""

    from_: Literal["Same", "All", "Selector"] = msgspec.field(default="Same", name="from")
    selector: Selector | None = None

    def selects(self, namespace: str, labels: Mapping[str, str], *, home: str) -> bool:
        """Whether a resource of the namespace `home` selects this namespace, which has these labels.

        As everywhere in Kubernetes, a missing selector selects nothing and an empty one everything.
        """
        match self.from_:
            case "All":
                return True
            case "Selector":
                return self.selector is not None and self.selector.matches(labels)
            case "Same":
                return namespace == home


_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")


def is_label_value(text: str) -> bool:
    """Whether a label may carry this text: 1 to 63 letters, digits, `-`, `_` and `.`, alphanumeric at both ends."""
    return _LABEL_VALUE.fullmatch(text) is not None
