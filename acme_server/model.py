"""What a validation comes to: the only thing that the state machine learns about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from kms.resources.orders import ChallengeType, StoredProblem


class ChallengeId(NamedTuple):
    """A challenge of an order: the position of its identifier, and its type."""

    position: int
    type: ChallengeType


@dataclass(frozen=True, slots=True)
class Valid:
    """Control of the identifier was proven at that time, and its CAA records were looked at then (None: not)."""

    at: datetime
    caa_checked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Control was not proven: why, for people, and without repeating anything that was fetched."""

    problem: StoredProblem


Outcome = Valid | Failed
