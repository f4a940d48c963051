"""Patterns for one kind of value."""

from __future__ import annotations

from dataclasses import dataclass

from kms.pki.pattern_sets import NO_PATTERNS, PatternSet, Value


@dataclass(frozen=True, slots=True)
class Rules:
    """Patterns for one kind of value: deny wins over allow, and each required pattern must match a value."""

    allowed: PatternSet = NO_PATTERNS
    denied: PatternSet = NO_PATTERNS
    required: PatternSet = NO_PATTERNS

    def allows(self, value: str) -> bool:
        """Whether the value is allowed and not denied."""
        compared = Value.of(value)
        return self.allowed.find(compared) is not None and self.denied.find(compared) is None

    @property
    def cost(self) -> float:
        """The most that one value can cost, in comparisons of two texts: of a wildcard, denied patterns twice."""
        return self.allowed.cost + 2 * self.denied.cost + self.required.cost
