"""The objects of FakeApiServer: the behaviour of etcd and of the registries of a real API server.

It has versions, preconditions, the status subresource, server-side apply, selectors and a history for watches. Its
errors are those of a real API server: tests/kms/cluster/test_client.py tests the same cases against it as
tests/integration/test_cluster_client.py tests against a real one.
"""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kms.resources.meta import GROUP

JSON = dict[str, Any]


class ObjectKey(NamedTuple):
    """What identifies an object."""

    plural: str
    namespace: str
    name: str


class Change(NamedTuple):
    """One event in the history: `before` is None for a new object, `after` None for a deleted one."""

    version: int
    key: ObjectKey
    before: JSON | None
    after: JSON | None


class Refusal(Exception):
    """An answer that is not 2xx: HTTP status, CamelCase reason, message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Objects:
    """All objects by key, as plain JSON."""

    def __init__(self) -> None:
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        """For creationTimestamp; a test may move it."""
        self.by_key: dict[ObjectKey, JSON] = {}
        self.version = 100
        self.history: list[Change] = []
        self.oldest = self.version
        self.changed = asyncio.Event()
        self._applied: dict[tuple[ObjectKey, str, str], JSON] = {}

    def get(self, key: ObjectKey) -> JSON:
        if key not in self.by_key:
            raise Refusal(404, "NotFound", f'{key.plural} "{key.name}" not found')
        return self.by_key[key]

    def select(self, plural: str, namespace: str | None, matches: Callable[[JSON], bool]) -> list[JSON]:
        keys = sorted(key for key in self.by_key if key.plural == plural and namespace in {None, key.namespace})
        return [self.by_key[key] for key in keys if matches(self.by_key[key])]

    def create(self, plural: str, namespace: str, body: JSON, *, keep_status: bool = False) -> JSON:
        new = copy.deepcopy(body)
        metadata = new["metadata"]
        if metadata.get("namespace", namespace) != namespace:
            raise Refusal(400, "BadRequest", "the namespace of the object does not match the namespace of the request")
        if metadata.get("resourceVersion"):
            raise Refusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        metadata.setdefault("name", metadata.get("generateName", "") + uuid.uuid4().hex[:5])
        key = ObjectKey(plural, namespace, metadata["name"])
        if key in self.by_key:
            raise Refusal(409, "AlreadyExists", f'{plural} "{key.name}" already exists')
        if _has_status(new) and not keep_status:
            new.pop("status", None)
        metadata |= {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": f"{self.clock():%Y-%m-%dT%H:%M:%SZ}",
            "generation": 1,
        }
        if namespace:
            metadata["namespace"] = namespace
        return self._store(key, new)

    def replace(self, key: ObjectKey, body: JSON, *, status: bool) -> JSON:
        old = self.get(key)
        self._check(key, old, body["metadata"], required=_has_status(old))
        return self._update(key, old, body, status=status)

    def apply(self, key: ObjectKey, body: JSON, *, manager: str, status: bool) -> JSON:
        """Merge `body`, and remove the fields that `manager` applied last time but not now."""
        owned = copy.deepcopy(body)
        wanted_version = owned["metadata"].pop("resourceVersion", None)
        if key not in self.by_key:
            if status or wanted_version:
                raise Refusal(404, "NotFound", f'{key.plural} "{key.name}" not found')
            created = self.create(key.plural, key.namespace, owned)
            self._applied[key, manager, ""] = owned
            return created
        old = self.by_key[key]
        if wanted_version is not None:
            self._check(key, old, body["metadata"], required=True)
        before = self._applied.get((key, manager, "status" if status else ""), {})
        self._applied[key, manager, "status" if status else ""] = owned
        return self._update(key, old, merged(without(old, before, owned), owned), status=status)

    def delete(self, key: ObjectKey, preconditions: Mapping[str, str]) -> None:
        old = self.get(key)
        for field in ("uid", "resourceVersion"):
            if field in preconditions and preconditions[field] != old["metadata"][field]:
                raise Refusal(409, "Conflict", f"Precondition failed: {field} of {key.plural} {key.name!r}")
        del self.by_key[key]
        for applied in [each for each in self._applied if each[0] == key]:
            del self._applied[applied]
        self._record(key, old, None)

    def compact(self) -> None:
        """Delete the history: watches from older versions, and pages of older lists, become Gone."""
        self.version += 1
        self.history.clear()
        self.oldest = self.version

    def changes_after(self, version: int, *, running: bool = False) -> list[Change]:
        # A running watch that has seen everything continues; a new one from an older version is Gone.
        if version < self.oldest - running:
            raise Refusal(410, "Expired", f"too old resource version: {version} ({self.oldest})")
        return [change for change in self.history if change.version > version]

    def _check(self, key: ObjectKey, old: JSON, metadata: JSON, *, required: bool) -> None:
        version = metadata.get("resourceVersion")
        if version is None and required:
            raise Refusal(422, "Invalid", "metadata.resourceVersion: Invalid value: must be specified for an update")
        uid = metadata.get("uid", old["metadata"]["uid"])
        if version not in {None, old["metadata"]["resourceVersion"]} or uid != old["metadata"]["uid"]:
            message = f'Operation cannot be fulfilled on {key.plural} "{key.name}": the object has been modified'
            raise Refusal(409, "Conflict", message)

    def _update(self, key: ObjectKey, old: JSON, body: JSON, *, status: bool) -> JSON:
        new = copy.deepcopy(old if status else body)
        source = body if status else old
        if status or _has_status(old):
            new.pop("status", None)
            if "status" in source:
                new["status"] = copy.deepcopy(source["status"])
        kept = ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion")
        new["metadata"] |= {field: old["metadata"][field] for field in kept if field in old["metadata"]}
        if new == old:
            return old  # as in etcd, an unchanged object keeps its version
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        return self._store(key, new)

    def _store(self, key: ObjectKey, new: JSON) -> JSON:
        before = self.by_key.get(key)
        self.by_key[key] = new
        self._record(key, before, new)
        return new

    def _record(self, key: ObjectKey, before: JSON | None, after: JSON | None) -> None:
        self.version += 1
        if after is not None:
            after["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(Change(self.version, key, before, after))
        self.wake()

    def wake(self) -> None:
        """Let all watches check for changes."""
        self.changed.set()
        self.changed = asyncio.Event()


def merged(old: Any, new: Any) -> Any:
    """Server-side apply in short: objects merge, conditions by type and owners by uid, all else is replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merged(old.get(key), value) for key, value in new.items()}
    merge_key = _merge_key(new)
    if merge_key is None or not isinstance(old, list):
        return copy.deepcopy(new)
    by_key = {each[merge_key]: each for each in old}
    for each in new:
        by_key[each[merge_key]] = merged(by_key.get(each[merge_key]), each)
    return list(by_key.values())


def merge_patched(old: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    kept = {key: value for key, value in (old if isinstance(old, dict) else {}).items() if key not in patch}
    changed = {key: merge_patched((old or {}).get(key), each) for key, each in patch.items() if each is not None}
    return {**kept, **changed}


def without(current: Any, before: Any, now: Any) -> Any:
    """`current` without the fields, conditions and owners that `before` had and `now` has not."""
    if (key := _merge_key(before)) is not None and isinstance(now, list) and isinstance(current, list):
        gone = {each[key] for each in before} - {each.get(key) for each in now}
        return [each for each in current if each.get(key) not in gone]
    if not (isinstance(current, dict) and isinstance(before, dict) and isinstance(now, dict)):
        return current
    kept = {key: value for key, value in current.items() if key in now or key not in before}
    return {key: without(value, before.get(key), now.get(key)) for key, value in kept.items()}


def _merge_key(items: Any) -> str | None:
    if isinstance(items, list) and items and all(isinstance(each, dict) for each in items):
        return next((key for key in ("uid", "type") if all(key in each for each in items)), None)
    return None


def label_selector(text: str) -> Callable[[JSON], bool]:
    """`a=b,c!=d,e in (f,g),h,!i`"""
    terms = re.findall(r"[^,()]+(?:\([^)]*\))?", text)

    def matches(body: JSON) -> bool:
        labels = body["metadata"].get("labels", {})
        return all(_term_matches(term.strip(), labels) for term in terms)

    return matches


def _term_matches(term: str, labels: Mapping[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+)\s+in\s+\((.*)\)", term):
        return labels.get(found[1]) in {each.strip() for each in found[2].split(",")}
    if found := re.fullmatch(r"([^!=]+)(!=|==?)(.*)", term):
        return (labels.get(found[1]) == found[3]) is (found[2] != "!=")
    return term[1:] not in labels if term.startswith("!") else term in labels


def field_selector(text: str) -> Callable[[JSON], bool]:
    """`metadata.name=x`, `status.state!=y` and any other path, joined by commas."""
    terms = [term.split("=", 1) for term in text.split(",") if term]

    def matches(body: JSON) -> bool:
        return all(
            (_field(body, path.removesuffix("!")) == value.removeprefix("=")) != path.endswith("!")
            for path, value in terms
        )

    return matches


def _field(body: Any, path: str) -> str:
    for part in path.split("."):
        body = body.get(part, "") if isinstance(body, dict) else ""
    return str(body)


def _has_status(body: JSON) -> bool:
    return str(body.get("apiVersion", "")).startswith(f"{GROUP}/")
