"""A pattern of a policy, written by a tenant, and a value to match, sent by a client."""

from __future__ import annotations

from fuzz.target import Target
from kms.pki.patterns import InvalidPattern, label_pattern, value_pattern


def read(data: bytes) -> None:
    """Match: the first line is the pattern, the rest the value."""
    text, _, value = data.decode("utf-8", "replace").partition("\n")
    value_pattern(text).matches(value)
    pattern = label_pattern(text)
    pattern.matches(value)
    pattern.matches_below(value)


TARGET = Target(read, (InvalidPattern,), longest=1024)
