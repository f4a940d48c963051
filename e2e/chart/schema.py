"""values.schema.json, with which helm rejects unknown values and values of the wrong type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from e2e.chart.forms import without_forms
from e2e.chart.values import Value

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def schema(values: Sequence[Value]) -> str:
    """The schema of these values as JSON."""
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **_object(values)}, indent=2) + "\n"


def _object(values: Sequence[Value]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.path[-1]: _value(value) for value in values},
    }


def _value(value: Value) -> dict[str, Any]:
    described = {"description": value.description} if value.description else {}
    if value.children:
        return {**described, **_object(value.children), **value.schema}
    typed = {"type": _TYPES[type(value.default)]} if type(value.default) in _TYPES else {}
    return {**described, **typed, "default": value.default, **without_forms(value.schema)}
