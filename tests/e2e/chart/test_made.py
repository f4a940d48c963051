"""Schema and table of some values."""

from __future__ import annotations

import json

import pytest

from e2e.chart.readme import BEGIN, END, with_values
from e2e.chart.schema import schema
from e2e.chart.values import parse

VALUES = parse(
    """\
# A | B.
# @schema {enum: [a, b]}
choice: a
# What is shared.
# @schema {additionalProperties: true}
global:
  # Names.
  # @schema {items: {type: string}}
  names: []
# A number, or nothing.
# @schema {type: [integer, "null"]}
limit: null
"""
)


def test_the_schema_knows_types_defaults_and_nothing_else() -> None:
    made = json.loads(schema(VALUES))
    assert made["additionalProperties"] is False
    assert made["properties"]["choice"] == {
        "description": "A | B.",
        "type": "string",
        "default": "a",
        "enum": ["a", "b"],
    }
    assert made["properties"]["global"]["properties"]["names"]["items"] == {"type": "string"}
    assert made["properties"]["limit"]["type"] == ["integer", "null"]


def test_a_section_is_closed_unless_it_says_otherwise() -> None:
    assert json.loads(schema(VALUES))["properties"]["global"]["additionalProperties"] is True
    closed = parse("s:\n  # x\n  a: 1\n")
    assert json.loads(schema(closed))["properties"]["s"]["additionalProperties"] is False


def test_the_table_has_a_row_for_each_value_between_the_marks() -> None:
    made = with_values(f"before\n{BEGIN}\nold\n{END}\nafter\n", VALUES)
    assert made.startswith(f"before\n{BEGIN}\n")
    assert made.endswith(f"{END}\nafter\n")
    assert "old" not in made
    assert '| `choice` | A \\| B. | `"a"` |\n' in made
    assert "| **global** | What is shared. | |\n| `global.names` | Names. | `[]` |\n" in made
    assert with_values(made, VALUES) == made


@pytest.mark.parametrize("readme", ["", BEGIN, END])
def test_a_readme_without_the_marks_is_left_alone(readme: str) -> None:
    with pytest.raises(ValueError, match="lacks the markers"):
        with_values(readme, VALUES)
