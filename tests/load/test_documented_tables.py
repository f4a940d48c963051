"""Figures in the documentation are made by commands that are named above them, and the commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from e2e.load import compare, growth, ratios
from e2e.load.capacity import Cost, limits, needs
from e2e.load.tables import markdown
from e2e.stories.snippets import snippets
from tests.load.test_compare import ROUNDS
from tests.load.test_growth import row
from tests.load.test_ratios import body

ROOT = Path(__file__).parents[2]
PAGES = tuple(ROOT / "docs" / name for name in ("performance.md", "capacity.md"))
MARKER = re.compile(r"<!-- (made by: (?P<command>.+)|measured by hand: .+) -->")


def tables(page: Path) -> Iterator[tuple[str, str]]:
    """The head of each table of a page, with the line above it that is not empty."""
    lines = [line for line in page.read_text().splitlines() if line]
    for at, line in enumerate(lines):
        if line.startswith("| ---"):
            yield lines[at - 1], lines[at - 2]


def parsed(words: list[str]) -> None:
    """Parse the options of a command of ours. Raises ClickException if it does not know one."""
    command = import_module(f"{words[0]}.__main__" if words[0] == "e2e.load" else words[0]).main
    assert isinstance(command, click.Command)
    command.make_context(words[0], words[1:])


def check(command: str) -> None:
    """Check that a command exists, and its options."""
    words = [word for word in shlex.split(command) if "=" not in word or word.startswith("-")]
    match words:
        case [".venv/bin/python", "-m", *rest]:
            parsed(rest)
        case [".venv/bin/pytest", *rest]:
            assert all((ROOT / each).exists() for each in rest if "/" in each), command
        case ["make", target]:
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(), command
        case _:
            pytest.fail(f"{command} is no command of this project")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_is_made_by_a_command_that_exists_or_says_how_else(page: Path) -> None:
    found = list(tables(page))
    assert found
    for head, above in found:
        marker = MARKER.fullmatch(above)
        assert marker, f"{page.name}: no command above {head}"
        if command := marker["command"]:
            check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_readers_see_the_command_that_made_a_table(page: Path) -> None:
    made = {found["command"] for _, above in tables(page) if (found := MARKER.fullmatch(above)) and found["command"]}
    assert made <= {each.text.strip() for each in snippets(page)}


def test_tables_have_the_heads_that_the_commands_print() -> None:
    shown = {head for page in PAGES for head, _ in tables(page)}
    ours = [ratios.steps(body()), ratios.processes(body(server=1.0)), ratios.challenges([body(server=1.0)])]
    printed = [*map(markdown, ours), compare.table(ROUNDS), growth.table([row("a", 1)])]
    assert {each.splitlines()[0] for each in printed} <= shown


def test_the_arithmetic_is_what_the_command_calculates() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    for each in (needs(Cost()), limits(Cost())):
        assert markdown(each) in page


def test_every_part_of_make_bench_is_a_target_that_runs_a_command_of_ours() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (parts,) = re.findall(r"^BENCH_PARTS := (.+)$", makefile, re.MULTILINE)
    for part in parts.split():
        (command,) = re.findall(rf"^{part}: .*\n\t@\$\(BIN\)/python -m (.+)$", makefile, re.MULTILINE)
        parsed(shlex.split(re.sub(r"\$\(or \$\(\w+\),(.+)\)", r"\1", command)))
