"""crds/ as data: the schemas of the eight kinds and a walk over their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kms.resources.kinds import (
    ACCOUNTS,
    AUTHORITIES,
    CERTIFICATE_CHAINS,
    CREDENTIALS,
    ORDERS,
    POLICIES,
    PROFILES,
    REVOCATION_RECORDS,
    Kind,
)

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "crds"
SAMPLES = ROOT / "deploy" / "samples"

CONFIGURATION: tuple[Kind[Any], ...] = (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS)
KINDS: tuple[Kind[Any], ...] = (*CONFIGURATION, ACCOUNTS, ORDERS, CERTIFICATE_CHAINS, REVOCATION_RECORDS)

Schema = Mapping[str, Any]


def definition(kind: Kind[Any]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    parsed: dict[str, Any] = yaml.safe_load((CRDS / f"{kind.plural}.yaml").read_text())
    return parsed


def version(kind: Kind[Any]) -> dict[str, Any]:
    """Its only version."""
    (only,) = definition(kind)["spec"]["versions"]
    parsed: dict[str, Any] = only
    return parsed


def schema(kind: Kind[Any]) -> Schema:
    """The schema of the whole object."""
    whole: Schema = version(kind)["schema"]["openAPIV3Schema"]
    return whole


def nodes(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node with its path, such as `spec.identifiers[].value`, without metadata."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        if path or name != "metadata":
            yield from nodes(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def with_defaults(value: Any, node: Schema) -> Any:
    """The value with the defaults of all absent fields, as the API server stores it."""
    if isinstance(value, dict):
        properties = node.get("properties", {})
        missing = {name: each["default"] for name, each in properties.items() if "default" in each}
        return {name: with_defaults(each, properties.get(name, {})) for name, each in {**missing, **value}.items()}
    if isinstance(value, list):
        return [with_defaults(each, node.get("items", {})) for each in value]
    return value
