"""What is said of two patterns holds for the values that they match."""

from __future__ import annotations

from itertools import product

import pytest

from kms.pki.pattern_overlap import Effort, PatternIndex
from kms.pki.pattern_sets import PatternSet, Value
from kms.pki.patterns import label_pattern

LABELS = ("a", "ab", "*", "**", "a*", "*b", "a*b")
PATTERNS = [".".join(each) for length in (1, 2, 3) for each in product(LABELS, repeat=length)]
VALUES = [
    Value.of(".".join(each)) for length in (1, 2, 3, 4) for each in product(("a", "ab", "b", "aab"), repeat=length)
]


def test_what_is_said_of_two_patterns_holds_for_all_values() -> None:
    """All pairs of a sample of the patterns of up to three labels, with all names of up to four."""
    sample = PATTERNS[::7]
    matched = {
        text: {n for n, each in enumerate(VALUES) if PatternSet.of(label_pattern(text)).find(each)} for text in sample
    }
    covers = 0
    for one, other in product(sample, repeat=2):
        index = PatternIndex([other], Effort())
        assert index.find_overlapping(one) == bool(matched[one] & matched[other]), (one, other)
        if index.find_cover(one) is not None:
            covers += 1
            assert matched[one] <= matched[other], (one, other)
    assert covers > len(sample)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("shop.example.com", "shop.example.com"),
        ("shop.example.com", "*.EXAMPLE.com"),
        ("web*.example.com", "w*.example.com"),
        ("*.apps.example.com", "**.example.com"),
        ("**.apps.example.com", "**"),
    ],
)
def test_a_narrower_pattern_is_covered(narrow: str, wide: str) -> None:
    assert PatternIndex(["other.example.org", wide], Effort()).find_cover(narrow) == wide
    assert PatternIndex([narrow], Effort()).find_cover(wide) is None or narrow.lower() == wide.lower()


def test_with_too_many_patterns_no_rule_is_called_useless() -> None:
    """500 against 500 patterns with one ending: the effort is bounded, and the answers are the careful ones."""
    effort = Effort()
    others = PatternIndex([f"a{number}*.*.example.com" for number in range(500)], effort)
    answers = [others.find_overlapping(f"b{number}*.*.example.com") for number in range(500)]
    assert answers[0] is False
    assert answers[-1] is True
    assert others.find_cover("a1*.*.example.com") is None
