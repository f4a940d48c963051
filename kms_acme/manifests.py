"""Reads manifests from a folder, as strictly as `kubectl apply --validate=strict` would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kms.resources.kinds import AUTHORITIES, CREDENTIALS, NAMESPACES, POLICIES, PROFILES, Kind
from kms.resources.meta import GROUP
from kms_acme.configuration import Configuration

_KINDS = {(kind.api_version, kind.kind): kind for kind in (AUTHORITIES, CREDENTIALS, NAMESPACES, POLICIES, PROFILES)}
_SUFFIXES = (".yaml", ".yml", ".json")
_NO_MODEL = {"apiVersion", "kind", "metadata", "status"}


class BadManifest(ValueError):
    """A manifest is invalid. The message names file, object, field and what is wrong."""


def read_manifests(folder: Path, *, namespace: str) -> Configuration:
    """The configuration in the files of a folder and of those below it; other kinds are skipped.

    Objects without a namespace are in `namespace`. Raises BadManifest.
    """
    objects: dict[tuple[str, str, str], tuple[Kind[Any], Any]] = {}
    for file in sorted(each for each in folder.rglob("*") if each.suffix in _SUFFIXES and each.is_file()):
        for document in _documents(file):
            kind = _kind(file, document)
            if kind is None:
                continue
            made = _decode(file, kind, document, namespace)
            key = (kind.kind, made.metadata.namespace, made.metadata.name)
            if key in objects:
                raise BadManifest(f"{file}: {_name(kind, document)} is there twice")
            objects[key] = (kind, made)
    if not any(kind is PROFILES for kind, _ in objects.values()):
        raise BadManifest(f"{folder} has no CertificateProfile of {GROUP}")
    return Configuration.of(objects.values(), offline=True)


def _documents(file: Path) -> Iterator[dict[str, Any]]:
    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadManifest(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    for each in documents:
        if isinstance(each, dict) and isinstance(each.get("items"), list):  # a List
            yield from (item for item in each["items"] if isinstance(item, dict))
        elif isinstance(each, dict):
            yield each


def _kind(file: Path, document: dict[str, Any]) -> Kind[Any] | None:
    version, name = str(document.get("apiVersion")), str(document.get("kind"))
    kind = _KINDS.get((version, name))
    if kind is None and version.startswith(f"{GROUP}/") and name in {each for _, each in _KINDS}:
        raise BadManifest(f"{file}: {name} has apiVersion {version}; write {_KINDS[next(iter(_KINDS))].api_version}")
    return kind


def _decode(file: Path, kind: Kind[Any], document: dict[str, Any], namespace: str) -> Any:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise BadManifest(f"{file}: {kind.kind} has no metadata.name")
    if kind.namespaced:
        document = {**document, "metadata": {"namespace": namespace, **metadata}}
    try:
        made = msgspec.json.decode(msgspec.json.encode(document), type=kind.model)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise BadManifest(f"{file}: {_name(kind, document)}: {error}") from None
    rest = {name: value for name, value in document.items() if name not in _NO_MODEL}
    if unknown := next(_unknown_fields(rest, msgspec.inspect.type_info(kind.model), ""), None):
        raise BadManifest(f"{file}: {_name(kind, document)}: there is no field {unknown}")
    return made


def _unknown_fields(value: Any, type_: msgspec.inspect.Type, path: str) -> Iterator[str]:
    match type_:
        case msgspec.inspect.UnionType(types=types):
            structured = next((each for each in types if _is_structured(each)), None)
            if structured is not None and value is not None:
                yield from _unknown_fields(value, structured, path)
        case msgspec.inspect.StructType(fields=fields) if isinstance(value, dict):
            known = {each.encode_name: each.type for each in fields}
            for name, inner in value.items():
                here = f"{path}.{name}" if path else str(name)
                if name in known:
                    yield from _unknown_fields(inner, known[name], here)
                else:
                    yield here
        case msgspec.inspect.VarTupleType(item_type=item) if isinstance(value, list):
            for position, inner in enumerate(value):
                yield from _unknown_fields(inner, item, f"{path}[{position}]")
        case _:
            return


def _is_structured(type_: msgspec.inspect.Type) -> bool:
    return isinstance(type_, msgspec.inspect.StructType | msgspec.inspect.VarTupleType)


def _name(kind: Kind[Any], document: dict[str, Any]) -> str:
    metadata = document["metadata"]
    return f"{kind.kind} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"
