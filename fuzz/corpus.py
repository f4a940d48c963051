"""The corpus: inputs of earlier runs, in fuzz/corpus/<target>.txt, one per line in base64."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
LONGEST = 2048
"""Maximum size of an input in bytes."""
MOST = 80
"""Maximum number of inputs per target, since `make test` replays them all."""


def found(name: str, folder: Path = FOLDER) -> tuple[bytes, ...]:
    """Read the inputs of a target."""
    path = folder / f"{name}.txt"
    return tuple(map(base64.b64decode, path.read_text().splitlines())) if path.exists() else ()


def keep(name: str, inputs: Iterable[bytes], folder: Path = FOLDER) -> None:
    """Add the shortest of these inputs to the corpus of a target."""
    known = found(name, folder)
    fresh = sorted({each for each in inputs if _is_worth_keeping(each)} - set(known), key=len)
    kept = sorted((*known, *fresh[: max(0, MOST - len(known))]), key=lambda each: (len(each), each))
    (folder / f"{name}.txt").write_text("".join(base64.b64encode(each).decode() + "\n" for each in kept))


def _is_worth_keeping(data: bytes) -> bool:
    """Whether an input is short and no private key; keys do not belong in a repository, not even test keys."""
    return len(data) <= LONGEST and b"PRIVATE" not in data
