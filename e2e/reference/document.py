"""The page: a section for each kind, with a table for its spec and one for its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Node = Mapping[str, Any]
"""A schema, or a part of one."""

PREFACE = """# Reference

All fields of the eight kinds in `pki.kms.hanzo.ai/v1alpha1`, generated from [crds/](../crds/) by `make reference`.
`kubectl explain certificateprofile.spec --recursive` shows the same texts.

`[]` denotes an entry of a list, `{}` a value of a map. A rule is the message with which the API server refuses a
violation.
"""
CONDITIONS = "conditions"
"""Shown as one row, since every condition in Kubernetes has the same fields."""

_LIMITS = (
    ("minLength", "minimum length {}"),
    ("maxLength", "maximum length {}"),
    ("minItems", "minimum entries {}"),
    ("maxItems", "maximum entries {}"),
    ("minimum", "minimum {}"),
    ("maximum", "maximum {}"),
)


def document(definitions: Sequence[Node]) -> str:
    """The whole page."""
    return "\n".join((PREFACE, _contents(definitions), *map(_section, definitions)))


def _contents(definitions: Sequence[Node]) -> str:
    lines = ["| kind | short name | description |", "| --- | --- | --- |"]
    for each in definitions:
        kind, short = each["spec"]["names"]["kind"], ", ".join(each["spec"]["names"].get("shortNames", ()))
        lines.append(f"| [{kind}](#{kind.lower()}) | `{short}` | {_cell(_first_sentence(each))} |")
    return "\n".join((*lines, ""))


def _first_sentence(definition: Node) -> str:
    return " ".join(_schema(definition)["description"].split()).partition(". ")[0].rstrip(".") + "."


def _section(definition: Node) -> str:
    schema = _schema(definition)
    parts = [f"## {definition['spec']['names']['kind']}\n", f"{_text(schema['description'])}\n", *_rules(schema)]
    for member in ("spec", "status"):
        if member not in schema["properties"]:
            continue
        node = schema["properties"][member]
        parts += [f"### {definition['spec']['names']['kind']} {member}\n", f"{_text(node['description'])}\n"]
        parts += [*_rules(node), "| field | type | description |", "| --- | --- | --- |"]
        parts += [_row(path, child, required=required) for path, child, required in fields(node, member)]
        parts.append("")
    parts += ["`kubectl get` shows:\n", "| column | description |", "| --- | --- |", *_columns(definition), ""]
    return "\n".join(parts)


def _schema(definition: Node) -> Node:
    (version,) = definition["spec"]["versions"]
    schema: Node = version["schema"]["openAPIV3Schema"]
    return schema


def _columns(definition: Node) -> Iterator[str]:
    (version,) = definition["spec"]["versions"]
    for each in version["additionalPrinterColumns"]:
        wide = " With `-o wide`." if each.get("priority") else ""
        meaning = each.get("description", "How long ago the object was created.")
        yield f"| {each['name'].upper()} | {_cell(meaning)}{wide} |"


def fields(node: Node, path: str) -> Iterator[tuple[str, Node, bool]]:
    """Every field below `node` with its path and whether it is required, in the order of the schema."""
    for name, child in node.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below, child, name in node.get("required", ())
        if name != CONDITIONS:
            yield from _inside(child, below)


def _inside(node: Node, path: str) -> Iterator[tuple[str, Node, bool]]:
    """The fields of an object, of the entries of a list, or of the values of a map."""
    yield from fields(node, path)
    if "items" in node:
        yield from _inside(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from _inside(node["additionalProperties"], f"{path}{{}}")


def _row(path: str, node: Node, *, required: bool) -> str:
    meaning = [node.get("description", "")]
    if required:
        meaning.append("Required.")
    for holder in (node, node.get("items", {})):
        meaning += [f"One of {', '.join(f'`{each}`' for each in holder['enum'])}."] if "enum" in holder else []
        meaning += [_sentence(each["message"]) for each in holder.get("x-kubernetes-validations", ())]
    limits = [text.format(node[key]) for key, text in _LIMITS if key in node]
    if limits:
        meaning.append(f"({', '.join(limits)})")
    return f"| `{path}` | {_type(node)} | {_cell(' '.join(meaning))} |"


def _rules(node: Node) -> Iterator[str]:
    rules = [f"- {_text(_sentence(each['message']))}" for each in node.get("x-kubernetes-validations", ())]
    if rules:
        yield "\n".join((*rules, ""))


def _sentence(message: str) -> str:
    return f"Rule: {message.rstrip().rstrip('.')}."


def _type(node: Node) -> str:
    match node:
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": "object", "additionalProperties": values}:
            return f"map of {_type(values)}"
        case {"format": "date-time"}:
            return "time"
        case {"type": type_}:
            return str(type_)
        case _:
            return "any"


def _text(text: str) -> str:
    """The text on one line, with Markdown characters escaped."""
    return " ".join(text.split()).replace("*", r"\*").replace("<", r"\<")


def _cell(text: str) -> str:
    return _text(text).replace("|", r"\|")
