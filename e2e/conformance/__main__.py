"""`python -m e2e.conformance`: writes docs/conformance.md, or says what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from e2e.conformance import lines, markers
from e2e.conformance.document import document, faults

ROOT = Path(__file__).parents[2]

HELP = """Write docs/conformance.md from docs/conformance/*.toml and from the markers in tests/ and e2e/.

Exit codes: 0; 1 where a line has neither a test nor a reason, where a marker names no line or stands on no test, and
with --check where the page is out of date; 2 for wrong usage."""


@click.command(help=HELP)
@click.option("--check", is_flag=True, help="Write nothing; fail where the page would change.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT,
    help="The project to read and write; default: this one.",
)
def main(*, check: bool, root: Path) -> None:
    """Run it."""
    try:
        parts = lines.read(root / "docs" / "conformance")
        tests = markers.read(root, ("tests", "e2e"))
    except (lines.BadLines, markers.BadMarker) as error:
        sys.exit(str(error))
    page, path = document(parts, tests), root / "docs" / "conformance.md"
    found = faults(parts, tests)
    if not check:
        path.write_text(page)
    elif not path.exists() or path.read_text() != page:
        found.append("docs/conformance.md is out of date: run `make conformance` and commit what it writes")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(prog_name="python -m e2e.conformance")
