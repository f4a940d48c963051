from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.cluster.codec import Listing, WatchEvent
from kms.cluster.indexer import Indexer
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import ObjectMeta, Unreadable
from tests.support.accounts import account


def version(object_: ACMEAccount, resource_version: int | str) -> ACMEAccount:
    metadata = msgspec.structs.replace(object_.metadata, resource_version=str(resource_version))
    return msgspec.structs.replace(object_, metadata=metadata)


def names(indexer: Indexer[ACMEAccount]) -> set[str]:
    return {each.metadata.name for each in indexer.values()}


def listed(*objects: ACMEAccount, at: int = 10, scopes: tuple[str | None, ...] = (None,)) -> Indexer[ACMEAccount]:
    indexer = Indexer(ACCOUNTS, scopes=scopes, indexes={"thumbprint": lambda each: [each.spec.thumbprint]})
    indexer.replace(None, Listing(objects, str(at)))
    return indexer


def test_the_index_follows_the_objects() -> None:
    indexer = listed(version(account("a", thumbprint="x"), 5), version(account("b", thumbprint="x"), 6))
    assert [each.metadata.name for each in indexer.by("thumbprint", "x")] == ["a", "b"]
    indexer.put(version(account("a", thumbprint="y"), 11))
    assert [each.metadata.name for each in indexer.by("thumbprint", "x")] == ["b"]
    assert [each.metadata.name for each in indexer.by("thumbprint", "y")] == ["a"]
    indexer.replace(None, Listing((), "12"))
    assert indexer.by("thumbprint", "x") == indexer.by("thumbprint", "y") == ()
    assert not indexer.index_values("thumbprint")
    with pytest.raises(KeyError):
        indexer.by("no such index", "x")


def test_a_list_that_was_overtaken_by_a_write_does_not_undo_it() -> None:
    indexer = listed(version(account("changed"), 5))
    indexer.put(version(account("created"), 12))
    indexer.put(version(account("changed", thumbprint="new"), 13))
    indexer.replace(None, Listing((version(account("changed"), 5),), "11"))
    assert names(indexer) == {"created", "changed"}
    assert indexer.by("thumbprint", "new")


@pytest.mark.parametrize("at", ["14", "5000"])
def test_after_a_restore_of_etcd_the_list_alone_counts(at: str) -> None:
    """Its versions are older than those that were known; the list's own may be newer, if etcd was told to skip some."""
    indexer = listed(version(account("changed", thumbprint="lost"), 15), version(account("lost"), 16), at=20)
    indexer.replace(None, Listing((version(account("changed", thumbprint="restored"), 12),), at))
    assert names(indexer) == {"changed"}
    assert indexer.by("thumbprint", "restored")
    assert not indexer.by("thumbprint", "lost")


def test_a_late_deletion_does_not_delete_what_was_created_anew() -> None:
    indexer = listed(version(account("a"), 5))
    indexer.put(version(account("a"), 12))
    indexer.receive(None, WatchEvent("DELETED", version(account("a"), 11), "11"))
    assert names(indexer) == {"a"}
    indexer.receive(None, WatchEvent("DELETED", version(account("a"), 12), "12"))
    assert not indexer.values()
    indexer.receive(None, WatchEvent("DELETED", version(account("a"), 13), "13"))
    assert not indexer.values()


@given(st.data())
def test_in_whatever_order_answers_and_events_arrive_the_end_is_the_truth(data: st.DataObject) -> None:
    """Writes to three names; events in order, our own answers at any time after the write."""
    writes = data.draw(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=15))
    log = [(10 + number, name, deleted) for number, (name, deleted) in enumerate(writes, 1)]
    indexer = listed()
    events = list(log)
    answers = [version(account(name), at) for at, name, deleted in log if not deleted]
    while events or answers:
        if answers and (not events or data.draw(st.booleans())):
            indexer.put(answers.pop(data.draw(st.integers(0, len(answers) - 1))))
        else:
            at, name, deleted = events.pop(0)
            event = WatchEvent("DELETED" if deleted else "MODIFIED", version(account(name), at), str(at))
            indexer.receive(None, event)
    truth = {name: at for at, name, deleted in log}
    alive = {name for at, name, deleted in log if truth[name] == at and not deleted}
    assert {each.metadata.name: int(each.metadata.resource_version) for each in indexer.values()} == {
        name: truth[name] for name in alive
    }
    assert {each.metadata.name for each in indexer.by("thumbprint", "t" * 43)} == alive


def test_an_object_of_another_namespace_is_not_stored() -> None:
    indexer = listed(scopes=("pki",))
    indexer.put(version(account("a", "other"), 15))
    assert not indexer.values()


def unread(name: str, at: int) -> Unreadable:
    return Unreadable(ObjectMeta(name=name, namespace="pki", resource_version=str(at)), "spec.key", "Expected `str`")


@pytest.mark.requirement("SEC77", "SEC82")
def test_an_object_that_can_no_longer_be_read_is_gone_and_its_deletion_is_seen() -> None:
    changes: list[tuple[str, bool]] = []
    indexer = Indexer(ACCOUNTS, on_change=lambda each, gone: changes.append((each.metadata.name, gone)))
    indexer.replace(None, Listing((version(account("a"), 5), version(account("b"), 6)), "10"))
    changes.clear()
    indexer.receive(None, WatchEvent("MODIFIED", None, "12", unread("a", 12)))
    indexer.put(version(account("a"), 11))  # an answer that the watch has overtaken
    assert names(indexer) == {"b"}
    assert indexer.unreadable("pki", "a") == unread("a", 12)
    assert changes == [("a", True)]
    indexer.receive(None, WatchEvent("MODIFIED", version(account("a"), 13), "13"))
    assert (names(indexer), indexer.unreadable("pki", "a")) == ({"a", "b"}, None)
    indexer.receive(None, WatchEvent("MODIFIED", None, "14", unread("a", 14)))
    indexer.receive(None, WatchEvent("DELETED", None, "15", unread("a", 15)))
    indexer.receive(None, WatchEvent("DELETED", None, "16", unread("b", 16)))
    assert (names(indexer), indexer.unreadable("pki", "a")) == (set(), None)


@pytest.mark.requirement("SEC82")
def test_a_list_says_what_can_be_read() -> None:
    indexer = listed(version(account("a"), 5), version(account("b"), 6))
    indexer.replace(None, Listing((version(account("a"), 5),), "12", unreadable=(unread("b", 11),)))
    assert (names(indexer), indexer.unreadable("pki", "b")) == ({"a"}, unread("b", 11))
    indexer.replace(None, Listing((), "13"))
    assert (names(indexer), indexer.unreadable("pki", "b")) == (set(), None)
