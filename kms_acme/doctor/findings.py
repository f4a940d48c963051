"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
"""An error stops somebody now; a warning will, or is a risk; a note is worth knowing, or could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` is wrong with the object `about`, `why` it matters, and what to `do`: a sentence or a command."""

    level: Level
    about: str
    what: str
    why: str
    do: str
