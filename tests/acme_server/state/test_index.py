"""The one place that puts versions of objects in order, so that no test of a view has to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.state.index import Index, View
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key
from tests.support.accounts import account

UNREADABLE = -1


class Versions(View[ACMEAccount]):
    """Keeps the version of every object, and all that it was told."""

    def __init__(self, index: Index[ACMEAccount]) -> None:
        super().__init__(index)
        self.now: dict[Key, int] = {}
        self.told: list[tuple[str, int]] = []

    def put(self, key: Key, resource: ACMEAccount) -> None:
        self.now[key] = int(resource.metadata.resource_version)
        self.told.append((key[1], self.now[key]))

    def remove(self, key: Key) -> None:
        del self.now[key]  # raises where it was not there

    def obscure(self, key: Key) -> None:
        self.now[key] = UNREADABLE


@dataclass
class Known:
    """An index with one view."""

    index: Index[ACMEAccount] = field(default_factory=Index)

    def __post_init__(self) -> None:
        self.view = Versions(self.index)

    def update(self, name: str, version: int, *, deleted: bool = False) -> None:
        resource = account(name)
        metadata = replace(resource.metadata, resource_version=str(version))
        self.index.update(replace(resource, metadata=metadata), deleted)

    def names(self) -> dict[str, int]:
        return {name: version for (_, name), version in self.view.now.items()}


News = list[tuple[str, int, bool]]
"""What became of objects: name, version and whether that is their deletion. Every version is there once."""


@st.composite
def histories(draw: st.DrawFn) -> tuple[News, News]:
    """What happened, in its order; and the same out of order, with repetitions."""
    names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=15))
    happened = [(name, version, draw(st.integers(0, 3)) == 0) for version, name in enumerate(names, 1)]
    repeated = draw(st.lists(st.sampled_from(happened), max_size=10))
    return happened, draw(st.permutations(happened + repeated))


@given(histories())
@pytest.mark.requirement("SEC56")
def test_whatever_the_order_of_news_the_newest_version_of_each_object_counts(history: tuple[News, News]) -> None:
    happened, arriving = history
    known = Known()
    for name, version, deleted in arriving:
        known.update(name, version, deleted=deleted)
    newest = {name: (version, deleted) for name, version, deleted in happened}
    assert known.names() == {name: version for name, (version, deleted) in newest.items() if not deleted}
    assert len(known.index) == len(known.names())
    assert len(set(known.view.told)) == len(known.view.told), "no version is told twice"
    for name in newest:
        told = [version for each, version in known.view.told if each == name]
        assert told == sorted(told), "no older version is told after a newer one"


@given(histories(), st.sets(st.sampled_from("abc")), histories())
@pytest.mark.requirement("SEC56")
def test_a_full_list_removes_what_it_does_not_show_and_what_the_watch_does_not_either(
    before: tuple[News, News], listed: set[str], meanwhile: tuple[News, News]
) -> None:
    known = Known()
    for name, version, deleted in before[1]:
        known.update(name, version, deleted=deleted)
    there = known.names()
    known.index.mark_complete()
    known.index.mark_stale()
    complete = [known.index.complete]
    assert not any(known.index.is_confirmed(("pki", name)) for name in there)
    newest = {name: version for name, version in there.items() if name in listed}
    for name, version in newest.items():
        known.update(name, version)
        assert known.index.is_confirmed(("pki", name))
    assert known.names() == there, "nothing is removed before the list is complete"
    for name, version, deleted in meanwhile[0]:
        known.update(name, version + 100, deleted=deleted)
        if deleted:
            newest.pop(name, None)
        else:
            newest[name] = version + 100
    known.index.mark_complete()
    assert known.names() == newest
    assert [*complete, known.index.complete] == [False, True]
    assert all(known.index.is_confirmed(("pki", name)) for name in newest)


def test_an_index_is_not_complete_before_the_first_list() -> None:
    assert not Known().index.complete


def test_an_object_that_was_created_again_under_its_name_is_there() -> None:
    known = Known()
    known.update("a", 3)
    known.update("a", 5, deleted=True)
    known.update("a", 4)
    assert known.names() == {}
    known.update("a", 6)
    known.update("a", 5, deleted=True)  # the same news once more
    assert known.names() == {"a": 6}


@pytest.mark.requirement("SEC67")
def test_only_the_latest_deletions_are_remembered() -> None:
    known = Known(Index(remembered=2))
    for version, name in enumerate("abcd", 10):
        known.update(name, version, deleted=True)
    for name in "abcd":
        known.update(name, 1)
    assert known.names() == {"a": 1, "b": 1}


def test_all_views_are_told() -> None:
    known = Known()
    other = Versions(known.index)
    known.update("a", 1)
    known.update("b", 2)
    known.update("b", 3, deleted=True)
    assert known.view.now == other.now == {("pki", "a"): 1}
