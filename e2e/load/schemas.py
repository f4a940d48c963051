"""Schemas of ACMEOrder to compare: a CRD in a group of its own, and the writes of an order for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from e2e.load.recording import Write, load

CRD = "acmeorders.yaml"
WRITES = "writes.json"
PLURAL = "acmeorders"

_PARTS = ("spec", "status")

Document = dict[str, Any]
Change = Callable[[Document], None]


@dataclass(frozen=True, slots=True)
class Schema:
    """A CRD with the writes of one order. `group` is its own, so that several are served at once."""

    name: str
    group: str
    version: str
    crd: Document = field(repr=False)
    writes: tuple[tuple[Write, Document], ...]

    @property
    def prefix(self) -> str:
        """The prefix of its objects in etcd."""
        return f"/registry/{self.group}/{PLURAL}/"


def schema(number: int, name: str, crd: Path, writes: tuple[Write, ...], change: Change | None = None) -> Schema:
    """A schema from a CRD file; `change` changes its version.

    All groups are as long as that of kms-acme, because managed fields repeat them.

    Raises:
        OSError: if the file cannot be read.
    """
    document = copy.deepcopy(yaml.safe_load(crd.read_text(encoding="utf-8")))
    group = f"s{number:02}.kms.hanzo.ai"
    (version,) = document["spec"]["versions"]
    if change is not None:
        change(version)
    document["metadata"]["name"] = f"{PLURAL}.{group}"
    document["spec"]["group"] = group
    document["spec"]["names"].pop("categories", None)
    document["spec"]["names"].pop("shortNames", None)
    bodies = [msgspec.json.decode(each.body) for each in writes]
    for each in bodies:
        each["apiVersion"] = f"{group}/{version['name']}"
    return Schema(name, group, version["name"], document, tuple(zip(writes, bodies, strict=True)))


def base_writes(folder: Path, default: tuple[Write, ...]) -> tuple[Write, ...]:
    """The writes in a folder of CRDs; those of today if it has none, as an export of crds/ from git."""
    path = folder / WRITES
    return load(path) if path.exists() else default


def without_rules(version: Document) -> None:
    """Remove all CEL rules."""
    for node in _nodes(_root(version)):
        node.pop("x-kubernetes-validations", None)


def with_atomic_parts(version: Document) -> None:
    """Let managed fields have one entry for spec and one for status."""
    for part in _PARTS:
        _root(version)["properties"][part]["x-kubernetes-map-type"] = "atomic"


def without_rules_with_atomic_parts(version: Document) -> None:
    """Both."""
    without_rules(version)
    with_atomic_parts(version)


def without_schema(version: Document) -> None:
    """Accept anything in spec and status: what no schema can be cheaper than."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-map-type": "atomic"}
    for part in _PARTS:
        _root(version)["properties"][part] = anything
    version.pop("selectableFields", None)


TRIALS: Mapping[str, Change] = {
    "no-rules": without_rules,
    "atomic": with_atomic_parts,
    "no-rules-atomic": without_rules_with_atomic_parts,
    "no-schema": without_schema,
}
"""Changes to the base that show what a part of it costs."""


def _root(version: Document) -> Document:
    root: Document = version["schema"]["openAPIV3Schema"]
    return root


def _nodes(node: Document) -> Iterator[Document]:
    yield node
    for each in node.get("properties", {}).values():
        yield from _nodes(each)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _nodes(node[key])
