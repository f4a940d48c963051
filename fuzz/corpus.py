"""Inputs that were found, kept in fuzz/corpus/<target>.txt: one a line, in base64, so that a review can count them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
LONGEST = 2048
"""Octets of an input that is worth keeping."""
MOST = 80
"""Inputs that are kept for a target: what `make test` replays takes time."""


def found(name: str, folder: Path = FOLDER) -> tuple[bytes, ...]:
    """The inputs of a target."""
    path = folder / f"{name}.txt"
    return tuple(map(base64.b64decode, path.read_text().splitlines())) if path.exists() else ()


def keep(name: str, inputs: Iterable[bytes], folder: Path = FOLDER) -> None:
    """Keep the shortest of these, beside those that are kept."""
    known = found(name, folder)
    fresh = sorted({each for each in inputs if _is_worth_keeping(each)} - set(known), key=len)
    kept = sorted((*known, *fresh[: max(0, MOST - len(known))]), key=lambda each: (len(each), each))
    (folder / f"{name}.txt").write_text("".join(base64.b64encode(each).decode() + "\n" for each in kept))


def _is_worth_keeping(data: bytes) -> bool:
    """Short, and no private key: none belongs into a repository, not even one that was made for this."""
    return len(data) <= LONGEST and b"PRIVATE" not in data
