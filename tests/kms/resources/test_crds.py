"""The YAML in crds/ and the models in kms.resources say the same, and the YAML is as it must be to be a manual."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from msgspec import inspect

from kms.pki.csr import SIGNATURE_ALGORITHMS
from kms.pki.keys import KEY_ALGORITHMS
from kms.pki.usages import KNOWN_USAGES
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
from kms.resources.meta import GROUP, VERSION, Condition, Time
from tests.support.crds import (
    CONFIGURATION,
    CRDS,
    KINDS,
    SAMPLES,
    Schema,
    definition,
    nodes,
    schema,
    version,
    with_defaults,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DATE_TIME = schema(CREDENTIALS)["properties"]["spec"]["properties"]["expiresAt"]["pattern"]

VOCABULARIES = {
    ("CertificatePolicy", "spec.usages.allowed[]"): KNOWN_USAGES,
    ("CertificatePolicy", "spec.usages.denied[]"): KNOWN_USAGES,
    ("CertificatePolicy", "spec.usages.required[]"): KNOWN_USAGES,
    ("CertificatePolicy", "spec.keyAlgorithms[]"): KEY_ALGORITHMS,
    ("CertificatePolicy", "spec.signatureAlgorithms[]"): frozenset(SIGNATURE_ALGORITHMS.values()),
    ("CertificateProfile", "spec.certificate.usages[]"): KNOWN_USAGES,
}
"""Words that the schema enumerates and that kms.pki knows; the models take them as text."""

WIRE = {
    inspect.StrType: ("string", None),
    inspect.BoolType: ("boolean", None),
    inspect.DateTimeType: ("string", "date-time"),
    inspect.BytesType: ("string", "byte"),
    inspect.AnyType: (None, None),
}

SHORT_NAMES = {
    AUTHORITIES: "kca",
    POLICIES: "kpol",
    PROFILES: "kprof",
    CREDENTIALS: "eab",
    ACCOUNTS: "acmeacct",
    ORDERS: "acmeord",
    CERTIFICATE_CHAINS: "kchain",
    REVOCATION_RECORDS: "revrec",
}

COLUMNS = {
    AUTHORITIES: ("READY REASON TYPE SUBJECT EXPIRES AGE", "WARNINGS"),
    POLICIES: ("READY REASON DNS AGE", "WARNINGS"),
    PROFILES: ("READY REASON CA POLICY EAB AGE", "DIRECTORY DESCRIPTION WARNINGS"),
    CREDENTIALS: ("READY REASON PROFILE PROFILENAMESPACE KID SECRET ACCOUNTS EXPIRES AGE", "WARNINGS"),
    ACCOUNTS: ("STATE PROFILE EAB EABNAMESPACE CREDENTIAL CONTACT ALIASOF AGE", ""),
    ORDERS: ("STATE NAMES PROFILE REASON EXPIRES AGE", "ACCOUNT CLIENT SERIAL"),
    CERTIFICATE_CHAINS: ("AGE", ""),
    REVOCATION_RECORDS: ("PROFILENAMESPACE PROFILE SERIAL REASON ACCOUNT UNTIL AGE", ""),
}

HEAD = {"apiVersion", "kind", "metadata"}

of_each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)


# The comparison with the models


def disagreements(kind: str, type_: inspect.Type, node: Schema, path: str) -> Iterator[str]:
    """What the model's type says differently from the schema at the same place, all the way down."""
    match type_:
        case inspect.UnionType(types=types):
            (type_,) = (each for each in types if not isinstance(each, inspect.NoneType))
            yield from disagreements(kind, type_, node, path)
        case inspect.StructType():
            yield from _struct(kind, type_, node, path)
        case inspect.VarTupleType(item_type=item):
            yield from _expected(node, path, "array", None)
            yield from disagreements(kind, item, node.get("items", {}), f"{path}[]")
        case inspect.DictType(value_type=value):
            yield from _expected(node, path, "object", None)
            yield from disagreements(kind, value, node.get("additionalProperties", {}), f"{path}{{}}")
        case inspect.IntType():
            if node.get("type") != "integer" or node.get("format") not in {"int32", "int64"}:
                yield f"{path}: must be an integer with a format"
        case inspect.LiteralType(values=values):
            yield from _expected(node, path, "string", None)
            if set(node.get("enum", ())) != set(values):
                yield f"{path}: the schema has {node.get('enum')}, the model {values}"
        case _:
            named, format_ = WIRE[type(type_)]
            yield from _expected(node, path, named, format_)
            if set(node.get("enum", ())) != set(VOCABULARIES.get((kind, path), ())):
                yield f"{path}: the schema has words that the model does not know, or the other way round"


def _expected(node: Schema, path: str, type_: str | None, format_: str | None) -> Iterator[str]:
    if (node.get("type"), node.get("format")) != (type_, format_):
        yield f"{path}: the schema has {node.get('type')} {node.get('format')}, the model {type_} {format_}"


def _struct(kind: str, struct: inspect.StructType, node: Schema, path: str) -> Iterator[str]:
    yield from _expected(node, path, "object", None)
    properties = {name: each for name, each in node.get("properties", {}).items() if path or name not in HEAD}
    fields = {each.encode_name: each for each in struct.fields if path or each.encode_name != "metadata"}
    for name in sorted(properties.keys() ^ fields.keys()):
        yield f"{path}.{name}: only {'the schema' if name in properties else 'the model'} has it"
    for name in properties.keys() & fields.keys():
        below = f"{path}.{name}".lstrip(".")
        if fields[name].required != (name in node.get("required", ())):
            yield f"{below}: required in the {'model' if fields[name].required else 'schema'} only"
        if below != "status":
            yield from _default(fields[name], properties[name], below)
        yield from disagreements(kind, fields[name].type, properties[name], below)


def _default(field: inspect.Field, node: Schema, path: str) -> Iterator[str]:
    """An object without the field must mean the same to the API server, which fills it in, and to the model."""
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if "default" in node:
        if field.required:
            yield f"{path}: the schema has a default, the model none"
        elif _converted(with_defaults(node["default"], node), field.type) != default:
            yield f"{path}: the schema's default is {node['default']}, the model's {default}"
    elif not field.required and _says_something(default):
        yield f"{path}: the schema lacks the default {default}"


def _converted(value: Any, type_: inspect.Type) -> Any:
    if isinstance(type_, inspect.StructType):
        return msgspec.convert(value, type_.cls)
    return tuple(value) if isinstance(value, list) else value


def _says_something(value: Any) -> bool:
    if isinstance(value, msgspec.Struct):
        return any(_says_something(getattr(value, name)) for name in value.__struct_fields__)
    return bool(value)


@of_each_kind
def test_the_schema_and_the_model_agree_field_by_field(kind: Kind[Any]) -> None:
    assert list(disagreements(kind.kind, inspect.type_info(kind.model), schema(kind), "")) == []


class Inner(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A model to find fault with."""

    count: int = 3
    unknown_to_schema: str = ""


class Outer(msgspec.Struct, kw_only=True):
    """A model to find fault with."""

    inner: Inner = Inner()
    names: tuple[str, ...]


def test_the_comparison_notices_every_sort_of_disagreement() -> None:
    node = {
        "type": "object",
        "properties": {
            "inner": {"type": "object", "default": {}, "properties": {"count": {"type": "string", "default": 4}}},
            "names": {"type": "array", "default": [], "items": {"type": "string", "enum": ["a"]}},
        },
    }
    found = "\n".join(disagreements("X", inspect.type_info(Outer), node, "spec"))
    for expected in (
        "spec.inner.unknownToSchema: only the model has it",
        "spec.inner: the schema's default is {}",
        "spec.inner.count: must be an integer",
        "spec.inner.count: the schema's default is 4",
        "spec.names: required in the model only",
        "spec.names: the schema has a default, the model none",
        "spec.names[]: the schema has words",
    ):
        assert expected in found


# What holds for each schema by itself


def test_there_is_one_file_a_kind() -> None:
    of_kustomize = {"Kustomization"}
    assert {each.name for each in CRDS.iterdir()} == {f"{kind.plural}.yaml" for kind in KINDS} | of_kustomize


@of_each_kind
def test_the_kind_goes_by_the_names_of_the_contract(kind: Kind[Any]) -> None:
    crd = definition(kind)
    assert crd["metadata"] == {"name": f"{kind.plural}.{GROUP}"}
    assert crd["spec"]["group"] == GROUP
    assert crd["spec"]["scope"] == "Namespaced"
    assert crd["spec"]["names"] == {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.kind.lower(),
        "shortNames": [SHORT_NAMES[kind]],
        "categories": ["kms"] if kind in CONFIGURATION else ["kms-records"],
    }


@of_each_kind
def test_the_only_version_is_stored_and_has_a_status_of_its_own_if_any(kind: Kind[Any]) -> None:
    only = version(kind)
    assert (only["name"], only["served"], only["storage"]) == (VERSION, True, True)
    # What a RevocationRecord or a CertificateChain says never changes, and kubectl restores it from a file.
    assert only.get("subresources") == (None if kind in (REVOCATION_RECORDS, CERTIFICATE_CHAINS) else {"status": {}})


@of_each_kind
def test_the_columns_are_those_of_the_contract(kind: Kind[Any]) -> None:
    columns = version(kind)["additionalPrinterColumns"]
    shown = " ".join(each["name"].upper() for each in columns if not each.get("priority"))
    wide = " ".join(each["name"].upper() for each in columns if each.get("priority") == 1)
    assert (shown, wide) == COLUMNS[kind]


@of_each_kind
def test_only_the_age_is_of_type_date(kind: Kind[Any]) -> None:
    # kubectl shows a date as the time since then, and one in the future as <invalid>.
    dates = [each["name"] for each in version(kind)["additionalPrinterColumns"] if each["type"] == "date"]
    assert dates == ["Age"]


@of_each_kind
def test_columns_and_selectable_fields_point_at_fields_of_the_schema(kind: Kind[Any]) -> None:
    known = {path for path, _ in nodes(schema(kind))} | {"metadata.creationTimestamp"}
    paths = [each["jsonPath"] for each in version(kind)["additionalPrinterColumns"]]
    paths += [each["jsonPath"] for each in version(kind).get("selectableFields", ())]
    plain = {re.sub(r'\[(\?\(@\.type=="(Ready|Warnings)"\)|\*)\]', "[]", each.removeprefix(".")) for each in paths}
    assert plain <= known


@of_each_kind
def test_every_field_is_explained_in_whole_sentences(kind: Kind[Any]) -> None:
    for path, node in nodes(schema(kind)):
        description = node.get("description", "")
        assert description[:1].isalnum(), path
        assert description.endswith("."), path


def is_bounded(node: Schema) -> bool:
    """Whether an object of the schema can only take so much room in etcd, and a rule only so much time."""
    match node["type"]:
        case "string":
            return "maxLength" in node or "enum" in node or node.get("format") == "date-time"
        case "array":
            return "maxItems" in node and "x-kubernetes-list-type" in node
        case "object":
            return "properties" in node or "maxProperties" in node
        case "integer":
            return "minimum" in node
        case other:
            return bool(other == "boolean")


@of_each_kind
def test_every_string_list_map_and_number_is_bounded(kind: Kind[Any]) -> None:
    assert [path for path, node in nodes(schema(kind)) if not is_bounded(node)] == []


@of_each_kind
def test_every_number_that_people_write_has_a_maximum(kind: Kind[Any]) -> None:
    written = [node for path, node in nodes(schema(kind)) if path.startswith("spec") and node["type"] == "integer"]
    assert all("maximum" in node for node in written)


@of_each_kind
def test_every_default_is_told_because_kubectl_explain_does_not_show_it(kind: Kind[Any]) -> None:
    for path, node in nodes(schema(kind)):
        if path.startswith("spec") and node.get("default"):
            words = node["default"] if isinstance(node["default"], list) else [node["default"]]
            told = node["description"].partition("Default")[2]
            assert told or words == [{}], path
            assert all(isinstance(each, dict) or str(each) in told for each in words), path


@of_each_kind
def test_every_rule_says_in_words_what_to_do(kind: Kind[Any]) -> None:
    for path, node in nodes(schema(kind)):
        for rule in node.get("x-kubernetes-validations", ()):
            assert len(rule["message"].split()) > 3, path
            assert not rule["message"].endswith("."), path
            if rule["rule"].startswith("self == oldSelf"):
                assert rule["reason"] == "FieldValueForbidden", path


@pytest.mark.parametrize("kind", CONFIGURATION, ids=lambda kind: kind.plural)
def test_a_kind_that_people_write_begins_as_not_known_to_be_ready(kind: Kind[Any]) -> None:
    seeded = schema(kind)["properties"]["status"]["default"]["conditions"]
    (condition,) = msgspec.convert(seeded, tuple[Condition, ...])
    assert (condition.type, condition.status, condition.reason) == ("Ready", "Unknown", "Pending")
    assert condition.message == "Waiting for the operator"
    assert condition.observed_generation is None


def test_an_order_begins_pending_and_an_account_without_a_state() -> None:
    assert schema(ORDERS)["properties"]["status"]["default"] == {"state": "pending"}
    assert "default" not in schema(ACCOUNTS)["properties"]["status"]


def test_the_samples_decode_to_the_models() -> None:
    models = {kind.kind: kind.model for kind in KINDS}
    bodies = [each for file in sorted(SAMPLES.iterdir()) for each in yaml.safe_load_all(file.read_text())]
    assert [each["kind"] for each in bodies] == ["Namespace", *(kind.kind for kind in CONFIGURATION)]
    for body in bodies[1:]:
        assert body["apiVersion"] == f"{GROUP}/{VERSION}"
        assert msgspec.convert(body, models[body["kind"]]).metadata.namespace == "pki"


def is_date_time_of_the_api_server(text: str) -> bool:
    """Whether kube-openapi's `date-time` admits the text; it takes any offset, and any character before a fraction."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)t(\d\d):(\d\d):(\d\d)(.\d+)?(z|[-+]\d\d:\d\d)", text.lower())
    if match is None or (int(match[2]), int(match[3]), int(match[4])) > (23, 59, 59):
        return False
    try:
        date.fromisoformat(match[1].replace("0000-", "2000-"))
    except ValueError:
        return False
    return int(match[3]) < 60 and int(match[4]) < 60


@of_each_kind
@pytest.mark.requirement("SEC82")
def test_a_date_has_a_form_that_the_models_read(kind: Kind[Any]) -> None:
    patterns = {node.get("pattern") for _, node in nodes(schema(kind)) if node.get("format") == "date-time"}
    assert patterns == (set() if kind is CERTIFICATE_CHAINS else {DATE_TIME})


@pytest.mark.requirement("SEC82")
@given(
    st.from_regex(DATE_TIME, fullmatch=True)
    | st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat)  # noqa: DTZ001
)
@example("9999-12-31T23:59:59.999999Z")
@example("2027-01-01t00:00:00.5z")
@example("1000-01-01T00:00:00+23:59")
def test_whatever_date_is_admitted_is_read_and_compared(text: str) -> None:
    assume(is_date_time_of_the_api_server(text))
    read = msgspec.convert(text, Time)
    assert (read > NOW) is (read - NOW > timedelta(0))


@pytest.mark.requirement("SEC82")
@pytest.mark.parametrize(
    "text",
    [
        *("2027-01-01T00:00:00+99:99", "2027-01-01T00:00:00+24:00", "2027-01-01T00:00:00X123Z", "0000-01-01T00:00:00Z"),
        *("2027-01-01T00:00:00,5Z", "9999-12-31T23:59:59.9999999Z"),
    ],
)
def test_a_date_that_only_the_api_server_takes_is_refused(text: str) -> None:
    assert is_date_time_of_the_api_server(text)
    assert re.fullmatch(DATE_TIME, text) is None
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, Time)
