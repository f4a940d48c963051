"""Generate what follows from the chart's values and templates.

These are its values.schema.json, files/forms.yaml and README.md, and the kustomize base.

--check needs no helm: it checks schema, forms and README; a test checks the kustomize base.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from e2e.chart import forms, kustomize, readme, schema, values
from e2e.chart.helm import CHART, ROOT, Helm, program
from e2e.cluster.progress import Progress


def made_of_values() -> dict[Path, str]:
    """The files generated from values.yaml alone."""
    parsed = values.parse((CHART / "values.yaml").read_text(encoding="utf-8"))
    text = (CHART / "README.md").read_text(encoding="utf-8")
    return {
        CHART / "values.schema.json": schema.schema(parsed),
        CHART / "README.md": readme.with_values(text, parsed),
        CHART / "files" / "forms.yaml": forms.file(parsed),
    }


def differing(files: dict[Path, str]) -> list[Path]:
    """The files that are missing or out of date."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Generate the files, or check them."""
    parser = argparse.ArgumentParser(prog="python -m e2e.chart", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    parser.add_argument("--build", action="store_true", help="only build helm into the cache, and print its path")
    asked = parser.parse_args()
    if asked.build:
        print(program(os.environ, Progress(sys.stderr)))
        return 0
    if asked.check:
        stale = differing(made_of_values())
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run `make chart` and commit the result")
        return 1 if stale else 0
    _write(made_of_values())  # first, since helm validates the values against the schema
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
