"""Strategies for objects that an API server with the schemas of crds/ may admit, and for what only looks alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from kms.resources.kinds import Kind
from tests.support import crds
from tests.support.manifests import Manifest, manifest

Changes = list[tuple[tuple[str, ...], Any]]
"""Paths of a section, and the values that are put there."""

_ODD_TIMES = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(
        ["2027-01-01", "0000-01-01", "0001-01-01", "9999-12-31", "2028-02-29", "2027-02-29", "12027-01-01"]
    ),
    st.sampled_from("Tt "),
    st.sampled_from(["00:00:00", "23:59:59", "23:59:60", "24:00:00", "1:2:3"]),
    st.sampled_from(["", ".5", ",5", "X123", ".123456", ".9999999", ".123456789", ".1234567890123"]),
    st.sampled_from(["Z", "z", "", "+00:00", "-00:00", "+23:59", "-23:59", "+24:00", "+99:99", "-99:00", "+1:00"]),
)
_TIMES = st.datetimes(timezones=st.just(None)).map(lambda moment: f"{moment.isoformat()}Z") | _ODD_TIMES
_WORDS = st.sampled_from(
    [
        *("web", "*.apps.example.com", "**", "**.example.com", "a" * 63, "digital signature", "server auth", "US"),
        *("10.0.0.0/8", "10.0.0.0/08", "010.0.0.0/8", "10.0.0.1/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "10.0.0.1"),
        *("fe80::%eth0/64", "::ffff:10.0.0.0/104", "::ffff:a00:0/104", "2001:DB8::/32", "64:ff9b::10.0.0.0/104"),
        *("720h", "1h30m", "0.5h", "1h1h1h", "1.999h0.001ms", "999999h", "876000h", "60s", "1e3s", "-1h", "+1h", "1us"),
        *("https://example.com/terms", "mailto:a@example.com", "ECDSA-P256", "ECDSA-SHA256", "", "\u00fc", "\u0000"),
        *("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "aGVsbG8=", "aGVsbG8", "aGVsbG9_"),
    ]
)
_NUMBERS = st.integers(-2, 5000) | st.sampled_from([1.0, 1e3, 2.5, 2**31, 2**53, 2**63 - 1, 2**63, 1e19, 1e21, 1e300])
_ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _deep(levels: int) -> Any:
    node: Any = 1
    for _ in range(levels):
        node = {"a": node}
    return node


def values(schema: crds.Schema) -> st.SearchStrategy[Any]:
    """Values that the schema describes, and some that it nearly describes; its rules in CEL are not looked at."""
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], "another"])
    match schema.get("type"):
        case "object":
            return _objects(schema)
        case "array":
            return st.lists(values(schema["items"]), max_size=3, unique_by=repr)
        case "integer":
            return _NUMBERS
        case "boolean":
            return st.booleans()
        case _:
            return _strings(schema)


def _objects(schema: crds.Schema) -> st.SearchStrategy[Any]:
    if "additionalProperties" in schema:
        return st.dictionaries(_WORDS, values(schema["additionalProperties"]), max_size=3)
    properties: Mapping[str, crds.Schema] = schema.get("properties", {})
    if not properties:
        return st.dictionaries(st.sampled_from("abc"), _ANYTHING, max_size=3) | st.just(_deep(50))
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {name: values(each) for name, each in properties.items() if name in required},
        optional={name: values(each) for name, each in properties.items() if name not in required},
    )


def _strings(schema: crds.Schema) -> st.SearchStrategy[Any]:
    if schema.get("format") == "date-time":
        return _TIMES
    if schema.get("format") == "byte":
        return st.binary(max_size=4).map(lambda octets: octets.hex()) | _WORDS
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True) | _WORDS
    return _WORDS


def _places(schema: crds.Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], crds.Schema]]:
    for name, child in schema.get("properties", {}).items():
        yield (*path, name), child
        yield from _places(child, (*path, name))


def objects(kind: Kind[Any]) -> st.SearchStrategy[Manifest]:
    """The smallest manifest of the kind with up to three parts of its spec, and of its status, made otherwise."""
    sections = crds.schema(kind)["properties"]

    def changes(section: str) -> st.SearchStrategy[Changes]:
        places = list(_places(sections.get(section, {})))
        # Every date is a place of its own, so that each of them is drawn often.
        if not places:
            return st.just([])
        change = st.sampled_from(places).flatmap(lambda place: st.tuples(st.just(place[0]), values(place[1])))
        return st.lists(change, max_size=3)

    return st.builds(_changed, st.just(kind), changes("spec"), changes("status"))


def _changed(kind: Kind[Any], spec: Changes, status: Changes) -> Manifest:
    body = manifest(kind)
    if "status" in crds.schema(kind)["properties"]:
        body["status"] = {}
    for section, changes in (("spec", spec), ("status", status)):
        for path, value in changes:
            _set(body[section], path, value)
    return body


def _set(node: Any, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    node[path[-1]] = value
