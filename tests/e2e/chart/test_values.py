"""Reading values.yaml: comments, sections, what is said of the schema."""

from __future__ import annotations

import pytest

from e2e.chart.values import Undescribed, Value, parse

TEXT = """\
# About the file.

# How many there are,
# and more.
# @schema {minimum: 0}
# @schema {maximum: 9}
count: 1

# All of it.
section:
  # A name.
  name: ""
  inner:
    # Deep.
    deep: true

# Free in form.
resources:
  limits:
    memory: 1Gi
# In one line.
flow: {a: 1}
# Nothing in it.
empty: {}
"""


def by_name(text: str = TEXT) -> dict[str, Value]:
    return {leaf.name: leaf for each in parse(text) for leaf in each.leaves()}


def test_the_comment_above_a_value_describes_it() -> None:
    assert by_name()["count"].description == "How many there are, and more."
    assert by_name()["section.name"].description == "A name."


def test_what_a_comment_says_of_the_schema_is_not_in_the_description() -> None:
    assert by_name()["count"].schema == {"minimum": 0, "maximum": 9}


def test_a_mapping_whose_members_are_described_is_a_section_at_any_depth() -> None:
    assert list(by_name()) == ["count", "section.name", "section.inner.deep", "resources", "flow", "empty"]
    assert by_name()["resources"].default == {"limits": {"memory": "1Gi"}}
    (section,) = (each for each in parse(TEXT) if each.name == "section")
    assert section.description == "All of it."


def test_a_comment_that_an_empty_line_parts_from_a_value_is_not_its() -> None:
    assert "About" not in by_name()["count"].description


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a: 1\n", "a in line 1"),
        ("# x\na: 1\n\nb: 2\n", "b in line 4"),
        ("# x\ns:\n  # y\n  a: 1\n  b: 2\n", "s.b in line 5"),
    ],
)
def test_a_value_that_nobody_describes_is_named(text: str, name: str) -> None:
    with pytest.raises(Undescribed, match=name):
        parse(text)


def test_a_file_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(Undescribed, match="not a mapping"):
        parse("- 1\n")
