"""The requirements: tests/conformance/*.toml, one file for each source, in the order of `part`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BadLines(ValueError):
    """A file is invalid. The message names the file, the line and the fix."""


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement.

    `says` paraphrases the requirement, `met` says how the product meets it, `reason` why no test proves it, and
    `departs` what the product does instead, and why.
    """

    id: str
    says: str
    met: str = ""
    reason: str = ""
    departs: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The lines of one source, such as an RFC."""

    title: str
    about: str
    lines: tuple[Line, ...]


def read(folder: Path) -> tuple[Part, ...]:
    """All parts. Raises BadLines."""
    documents = {path.name: tomllib.loads(path.read_text()) for path in sorted(folder.glob("*.toml"))}
    parts = [(document["part"], _part(name, document)) for name, document in documents.items()]
    found: dict[str, str] = {}
    for name, document in documents.items():
        for id_ in document["lines"]:
            if other := found.get(id_):
                raise BadLines(f"{id_} is in {other} and in {name}; an id names one line")
            found[id_] = name
    return tuple(part for _, part in sorted(parts, key=lambda each: each[0]))


def _part(name: str, document: Mapping[str, Any]) -> Part:
    lines = tuple(_line(name, id_, members) for id_, members in document["lines"].items())
    return Part(document["title"], document["about"], lines)


def _line(file: str, id_: str, members: Mapping[str, str]) -> Line:
    if unknown := members.keys() - {"says", "met", "reason", "departs"}:
        raise BadLines(f"{file}: {id_} has {', '.join(sorted(unknown))}; it takes says, met, reason and departs")
    if not members.get("says"):
        raise BadLines(f"{file}: {id_} lacks the requirement (says)")
    if not members.get("met") and not members.get("reason"):
        raise BadLines(f"{file}: {id_} has neither `met` nor `reason`")
    return Line(id_, **members)


def by_id(parts: Sequence[Part]) -> Mapping[str, Line]:
    """Every line by its id."""
    return {line.id: line for part in parts for line in part.lines}
