"""`python -m e2e.reference`: write docs/reference.md, or report that it is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import yaml

from e2e.reference.document import document

ROOT = Path(__file__).parents[2]
ORDER = (
    "certificateauthorities",
    "certificatepolicies",
    "certificateprofiles",
    "eabcredentials",
    "acmeaccounts",
    "acmeorders",
    "certificatechains",
    "revocationrecords",
)
"""Configuration kinds first, then those that the server writes."""

HELP = """Write docs/reference.md from the schemas in crds/.

Exit codes: 0 for success; 1 if a schema is missing or, with --check, if the page is out of date; 2 for wrong usage."""


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
        page = document([yaml.safe_load((root / "crds" / f"{each}.yaml").read_text()) for each in ORDER])
    except OSError as error:
        sys.exit(str(error))
    path = root / "docs" / "reference.md"
    if not check:
        path.write_text(page)
    elif not path.exists() or path.read_text() != page:
        sys.exit("docs/reference.md is out of date: run `make reference` and commit the result")


if __name__ == "__main__":
    main(prog_name="python -m e2e.reference")
