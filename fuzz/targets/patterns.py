"""Patterns of policies, and values to match: a line each. A tenant writes the one, a client the other (SEC33)."""

from __future__ import annotations

from fuzz.target import Target
from kms.pki.patterns import InvalidPattern, label_pattern, value_pattern


def read(data: bytes) -> None:
    """The first line is the pattern, the rest the value."""
    text, _, value = data.decode("utf-8", "replace").partition("\n")
    value_pattern(text).matches(value)
    pattern = label_pattern(text)
    pattern.matches(value)
    pattern.matches_below(value)


TARGET = Target(read, (InvalidPattern,), longest=1024)
