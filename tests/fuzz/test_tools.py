from __future__ import annotations

import time
from pathlib import Path

import pytest

from fuzz import corpus, seeds, targets
from fuzz.target import Target, TooSlow, check


def busy(_: bytes) -> None:
    until = time.thread_time() + 0.002
    while time.thread_time() < until:
        pass


def refused(_: bytes) -> None:
    raise KeyError


def test_a_target_may_refuse_in_its_own_way_only() -> None:
    check(Target(refused, (KeyError,)), b"")
    with pytest.raises(KeyError):
        check(Target(refused, (ValueError,)), b"")


def test_a_target_that_takes_too_long_is_told() -> None:
    check(Target(busy, ()), b"", budget=5)
    with pytest.raises(TooSlow, match=r"3 bytes took \d+ ms of CPU, 1 are allowed"):
        check(Target(busy, ()), b"abc", budget=0.001)


def test_a_target_is_given_no_more_than_it_would_ever_get() -> None:
    given: list[bytes] = []
    check(Target(given.append, (), longest=2), b"abc")
    assert given == [b"ab"]


@pytest.mark.parametrize("name", targets.NAMES)
def test_every_target_has_real_inputs(name: str) -> None:
    assert all(seeds.of(name))


def test_what_was_found_is_kept_once_and_the_shortest_first(tmp_path: Path) -> None:
    corpus.keep("x", [b"bb", b"a", b"\0" * (corpus.LONGEST + 1), b"-----BEGIN PRIVATE KEY-----"], tmp_path)
    corpus.keep("x", [b"a", b"", b"\n\xff"], tmp_path)
    assert corpus.found("x", tmp_path) == (b"", b"a", b"\n\xff", b"bb")
    corpus.keep("x", [b"%d" % number for number in range(1000)], tmp_path)
    assert len(corpus.found("x", tmp_path)) == corpus.MOST
    assert corpus.found("nothing", tmp_path) == ()


def test_every_corpus_belongs_to_a_target() -> None:
    assert {path.stem for path in corpus.FOLDER.glob("*.txt")} <= set(targets.NAMES)
