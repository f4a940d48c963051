"""A pattern of a policy, written by a tenant, and a value to match, sent by a client."""

from __future__ import annotations

from fuzz.target import Target
from kms.pki.pattern_sets import PatternSet, Value
from kms.pki.patterns import InvalidPattern, label_pattern, value_pattern


def read(data: bytes) -> None:
    """Match: the first line is the pattern, the rest the value."""
    text, _, value = data.decode("utf-8", "replace").partition("\n")
    compared = Value.of(value)
    PatternSet.of(value_pattern(text)).find(compared)
    patterns = PatternSet.of(label_pattern(text))
    patterns.find(compared)
    patterns.find_below(compared)


TARGET = Target(read, (InvalidPattern,), longest=1024)
