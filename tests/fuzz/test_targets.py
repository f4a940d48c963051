"""A short run of every fuzzing target, the same each time: real inputs, what was found, and variations of both."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz import corpus, seeds, targets
from fuzz.mutations import mutated
from fuzz.target import check

pytestmark = pytest.mark.requirement("SEC40", "SEC41")
SHORT = settings(max_examples=150, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@cache
def inputs(name: str) -> tuple[bytes, ...]:
    return (*seeds.of(name), *corpus.found(name))


@pytest.mark.parametrize("name", targets.NAMES)
def test_what_is_known_is_answered_or_refused_in_time(name: str) -> None:
    for data in inputs(name):
        check(targets.load(name), data)


@pytest.mark.parametrize("name", targets.NAMES)
def test_variations_of_it_are_answered_or_refused_in_time(name: str) -> None:
    target = targets.load(name)

    @SHORT
    @given(mutated(inputs(name)))
    def vary(data: bytes) -> None:
        check(target, data)

    vary()


@pytest.mark.parametrize("name", targets.NAMES)
@pytest.mark.parametrize("unit", [b"\0", b"[", b'{"a":', b"a.", b"*", b"xn--", b'"', b"\xc0\x0c", b"0\x80", b"%"])
def test_the_longest_input_of_one_kind_takes_no_longer(name: str, unit: bytes) -> None:
    target = targets.load(name)
    check(target, (unit * (target.longest // len(unit) + 1))[: target.longest])
