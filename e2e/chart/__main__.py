"""`python -m e2e.chart`: make what follows from the chart's values and templates; `--check` says what is out of date.

`--check` needs no helm, and so leaves out what is rendered: a test looks after that. `--build` only builds helm.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from e2e.chart import kustomize, readme, schema, values
from e2e.chart.helm import CHART, ROOT, Helm, program
from e2e.cluster.progress import Progress


def made_of_values() -> dict[Path, str]:
    """What follows from values.yaml alone."""
    parsed = values.parse((CHART / "values.yaml").read_text(encoding="utf-8"))
    text = (CHART / "README.md").read_text(encoding="utf-8")
    return {
        CHART / "values.schema.json": schema.schema(parsed),
        CHART / "README.md": readme.with_values(text, parsed),
    }


def differing(files: dict[Path, str]) -> list[Path]:
    """Those of the files that are not what they should be."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Make the files, or check them."""
    parser = argparse.ArgumentParser(prog="python -m e2e.chart", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where something is out of date")
    parser.add_argument("--build", action="store_true", help="build helm into the cache and say where it is")
    asked = parser.parse_args()
    if asked.build:
        print(program(os.environ, Progress(sys.stderr)))
        return 0
    if asked.check:
        stale = differing(made_of_values())
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: make chart")
        return 1 if stale else 0
    _write(made_of_values())  # first: Helm holds the values against the schema
    with tempfile.TemporaryDirectory(prefix="kms-acme-helm-") as home:
        _write(kustomize.files(Helm(program(os.environ, Progress(sys.stderr)), Path(home))))
    return 0


def _write(files: dict[Path, str]) -> None:
    for path in differing(files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
