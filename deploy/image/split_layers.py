"""Splits what the image contains into layers by how often it changes, so that an update moves the last one only.

    python3 split_layers.py /image /layers

`/image` keeps the interpreter with its libraries, and the rest of the base. `/layers/dependencies` gets the virtual
environment without our own files, and `/layers/program` these. It runs in the build of the image, with the base's
interpreter and without other packages.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ENVIRONMENT = Path("opt/kms-acme")
LIST_OF_PACKAGES = ENVIRONMENT / "sbom.cdx.json"
_OURS = "kms_acme-*.dist-info"


def split(image: Path, layers: Path) -> None:
    """Move the environment out of the image into two folders of `layers`.

    Raises ValueError if our distribution is not installed in the environment.
    """
    ours = sorted(_files_of_ours(image))
    for path in ours:
        _move(image, layers / "program", path)
    _move(image, layers / "dependencies", ENVIRONMENT)


def _files_of_ours(image: Path) -> Iterator[Path]:
    """Our packages with their bytecode, our command, and the list of packages, which has our version."""
    records = list((image / ENVIRONMENT).glob(f"lib/python3*/site-packages/{_OURS}/RECORD"))
    if len(records) != 1:
        raise ValueError(f"{len(records)} distributions match {_OURS} in {image / ENVIRONMENT}, instead of one")
    packages = records[0].parent.parent.relative_to(image)
    with records[0].open(encoding="utf-8", newline="") as file:
        listed = {Path(os.path.normpath(packages / row[0])) for row in csv.reader(file) if row}
    for path in listed:
        inside = path.relative_to(packages) if path.is_relative_to(packages) else None
        found = path if inside is None else packages / inside.parts[0]
        if (image / found).exists():  # scripts for shells are not in the image
            yield found
    yield LIST_OF_PACKAGES


def _move(image: Path, layer: Path, path: Path) -> None:
    """Move a file or folder, which may have been moved with another path, to the same place in the layer."""
    if not (image / path).exists():
        return
    for parent in reversed(path.parents):
        (layer / parent).mkdir(parents=True, exist_ok=True)
        shutil.copystat(image / parent, layer / parent)
    shutil.move(image / path, layer / path)


if __name__ == "__main__":
    split(Path(sys.argv[1]), Path(sys.argv[2]))
