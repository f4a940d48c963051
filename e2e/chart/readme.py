"""The table of values in the chart's README.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from e2e.chart.values import Value

BEGIN, END = "<!-- values: made of values.yaml by `make chart` -->", "<!-- end of values -->"


def with_values(readme: str, values: Sequence[Value]) -> str:
    """Put the table of values between the two markers of the README."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the markers {BEGIN} and {END}")
    return f"{before}{begin}\n\n{table(values)}\n{end}{after}"


def table(values: Sequence[Value]) -> str:
    """A row for each value."""
    return "| value | meaning | default |\n| --- | --- | --- |\n" + "".join(_rows(values))


def _rows(values: Sequence[Value]) -> Iterator[str]:
    for each in values:
        if each.children and each.description:
            yield f"| **{each.name}** | {_cell(each.description)} | |\n"
        if each.children:
            yield from _rows(each.children)
        else:
            yield f"| `{each.name}` | {_cell(each.description)} | `{_cell(json.dumps(each.default))}` |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
