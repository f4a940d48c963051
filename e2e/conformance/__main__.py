"""`python -m e2e.conformance`: write tests/conformance/README.md, or report what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from e2e.conformance import lines, markers
from e2e.conformance.document import FOLDER, document, faults

ROOT = Path(__file__).parents[2]

HELP = """Write tests/conformance/README.md from tests/conformance/*.toml and the markers in tests/ and e2e/.

Exit codes: 0 for success; 1 if a requirement has neither a test nor a reason, if a marker names an unknown requirement
or is not on a test, or, with --check, if the page is out of date; 2 for wrong usage."""


@click.command(help=HELP)
@click.option("--check", is_flag=True, help="Write nothing; fail if the page is out of date.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT,
    help="Project to read and write. Default: this one.",
)
def main(*, check: bool, root: Path) -> None:
    """Write the page, or check it."""
    try:
        parts = lines.read(root / FOLDER)
        tests = markers.read(root, ("tests", "e2e"))
    except (lines.BadLines, markers.BadMarker) as error:
        sys.exit(str(error))
    page, path = document(parts, tests), root / FOLDER / "README.md"
    found = faults(parts, tests)
    if not check:
        path.write_text(page)
    elif not path.exists() or path.read_text() != page:
        found.append(f"{FOLDER}/README.md is out of date: run `make conformance` and commit the result")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(prog_name="python -m e2e.conformance")
