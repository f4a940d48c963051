"""The page tests/conformance/README.md, and its faults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from e2e.conformance.lines import Line, Part, by_id
from e2e.conformance.markers import Claim

Tests = Mapping[str, Sequence[Claim]]
"""The tests of each line."""

FOLDER = "tests/conformance"
"""Folder of the requirements and of the page, below the root of the project."""

HEAD = """\
# Conformance

Each requirement, how the product meets it, and the tests that prove it. In RFC 8555, `M` marks a MUST, `S` a SHOULD and
`o` an option; requirements of other documents carry the name of the document. `SEC` are the project's own security
requirements, `C` those of cert-manager, `X` those of external issuing CAs.

`make conformance` writes this page from the TOML files beside it and from the markers on the tests
(`@pytest.mark.requirement("M75")`). `make check` fails if a requirement has neither a test nor a reason, if a marker
names an unknown requirement, or if this page is out of date.
"""


def faults(parts: Sequence[Part], tests: Tests) -> list[str]:
    """The faults of the document, a sentence for each."""
    known = by_id(parts)
    return [
        *(
            f"{line.id} has neither a test nor a reason: mark a test with it, or add a reason"
            for line in known.values()
            if line.id not in tests and not line.reason
        ),
        *(
            f"{test.path}: {test.name} proves {id_}, which is not in {FOLDER}/"
            for id_ in sorted(tests.keys() - known.keys())
            for test in tests[id_]
        ),
    ]


def document(parts: Sequence[Part], tests: Tests) -> str:
    """The page."""
    return "\n".join([HEAD, *_summary(parts, tests), *_departures(parts), *(_part(part, tests) for part in parts)])


def _summary(parts: Sequence[Part], tests: Tests) -> Iterator[str]:
    yield "| source | requirements | tested | with a reason only |"
    yield "| --- | --- | --- | --- |"
    for part in parts:
        proven = sum(line.id in tests for line in part.lines)
        yield f"| {part.title} | {len(part.lines)} | {proven} | {len(part.lines) - proven} |"
    lines = by_id(parts)
    proven = sum(id_ in tests for id_ in lines)
    yield f"| all | {len(lines)} | {proven} | {len(lines) - proven} |\n"


def _departures(parts: Sequence[Part]) -> Iterator[str]:
    yield "## Departures\n"
    yield "| id | requirement | instead |"
    yield "| --- | --- | --- |"
    for line in by_id(parts).values():
        if line.departs:
            yield f"| {line.id} | {_cell(line.says)} | {_cell(line.departs)} |"
    yield ""


def _part(part: Part, tests: Tests) -> str:
    rows = (_row(line, tests.get(line.id, ())) for line in part.lines)
    head = "| id | requirement | how it is met | tests |\n| --- | --- | --- | --- |"
    return "\n".join([f"## {part.title}\n", f"{part.about}\n", head, *rows, ""])


def _row(line: Line, tests: Sequence[Claim]) -> str:
    told = " ".join(each for each in (line.met, line.departs and f"Departs: {line.departs}") if each)
    if line.reason:
        told = f"{told} *{line.reason}*".strip()
    return f"| {line.id} | {_cell(line.says)} | {_cell(told)} | {_shown(tests)} |"


def _shown(tests: Sequence[Claim]) -> str:
    """The tests by file, with their names as sentences."""
    files = (
        f"[{path.removesuffix('.py')}](../../{path}): {'; '.join(_sentence(each.name) for each in group)}"
        for path, group in groupby(tests, key=lambda each: each.path)
    )
    return "<br>".join(files)


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _cell(text: str) -> str:
    """The text of a table cell: on one line, with escaped bars."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")
