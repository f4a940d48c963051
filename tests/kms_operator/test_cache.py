"""What has been seen: the newest version wins, what is gone stays gone, lists are the whole truth."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, AUTHORITIES, SECRETS
from kms.resources.meta import Unreadable
from kms.resources.secret_names import OWNER_UID
from kms_operator.cache import Cache
from kms_operator.indexes import OWNER
from kms_operator.snapshot import Snapshot
from tests.support.operated import SETTINGS, authority, metadata, names, secret

OWNED = {OWNER_UID: "uid"}


def account(name: str = "a", *, state: str | None = "valid", uses: str = "cred", version: int = 1) -> ACMEAccount:
    meta = metadata(name, version=version)
    binding = {"namespace": "team", "name": uses, "uid": f"uid-{name}", "keyID": "k"}
    plain = {
        "metadata": msgspec.to_builtins(meta),
        "spec": {
            "profileRef": {"name": "web"},
            "key": "{}",
            "thumbprint": "x",
            **({"externalAccount": binding} if uses else {}),
        },
        "status": {"state": state} if state else {},
    }
    return msgspec.convert(plain, ACMEAccount)


def known(cache: Cache, name: str = "issuing") -> Any:
    return cache.get(AUTHORITIES, ("pki", name))


def test_a_newer_version_replaces_an_older_one_and_not_the_other_way_round() -> None:
    cache = Cache()
    assert cache.put(AUTHORITIES, authority(version=9))
    assert not cache.put(AUTHORITIES, authority(version=9))
    assert not cache.put(AUTHORITIES, authority(version=8))
    assert cache.put(AUTHORITIES, authority(version=10))
    assert known(cache).metadata.resource_version == "10"


def test_what_is_gone_is_not_brought_back_by_an_answer_that_was_on_its_way() -> None:
    cache = Cache()
    cache.put(AUTHORITIES, authority(version=5))
    assert cache.remove(AUTHORITIES, authority(version=7))
    assert not cache.put(AUTHORITIES, authority(version=6))
    assert known(cache) is None
    assert cache.put(AUTHORITIES, authority(version=8)), "it was created again"


def test_a_live_read_outweighs_the_news_of_a_deletion() -> None:
    cache = Cache()
    cache.put(SECRETS, secret("x", version=5))
    cache.remove(SECRETS, secret("x", version=6))
    assert cache.put(SECRETS, secret("x", version=6), live=True)


def test_an_old_deletion_does_not_remove_what_was_created_since() -> None:
    cache = Cache()
    cache.put(AUTHORITIES, authority(version=9))
    assert not cache.remove(AUTHORITIES, authority(version=7))
    assert known(cache) is not None


def test_forgetting_what_was_never_known_is_nothing() -> None:
    assert not Cache().remove(AUTHORITIES, authority())


def test_a_list_says_what_is_new_and_what_has_gone() -> None:
    cache = Cache()
    for name in ("same", "changed", "gone", "younger"):
        cache.put(AUTHORITIES, authority(name, version=30 if name == "younger" else 5))
    cache.remove(AUTHORITIES, authority("deleted", version=6))
    listed = [authority("same", version=5), authority("changed", version=8), authority("new", version=9)]
    changed, gone = cache.replace(AUTHORITIES, listed, "20")
    assert [each.metadata.name for each in changed] == ["changed", "new"]
    assert [each.metadata.name for each in gone] == ["gone"]
    assert known(cache, "younger") is not None, "it was created after the list"


def test_a_list_makes_old_deletions_forgotten_and_keeps_later_ones() -> None:
    cache = Cache()
    cache.remove(AUTHORITIES, authority("old", version=6))
    cache.remove(AUTHORITIES, authority("late", version=60))
    cache.replace(AUTHORITIES, [], "20")
    assert cache.put(AUTHORITIES, authority("old", version=5))
    assert not cache.put(AUTHORITIES, authority("late", version=50))


@pytest.mark.parametrize("version", [20, 5000])
def test_after_a_restore_of_etcd_the_list_alone_counts(version: int) -> None:
    """Its versions are older than those that were known; the list's own may be newer, if etcd was told to skip some."""
    cache = Cache()
    for name, known_version in (("same", 5), ("changed", 30), ("equal", 15), ("lost", 31)):
        cache.put(AUTHORITIES, authority(name, version=known_version))
    cache.put_unreadable(AUTHORITIES, Unreadable(metadata("broken", version=33), "spec", "wrong"))
    cache.remove(AUTHORITIES, authority("deleted", version=32))
    since = cache.newest(AUTHORITIES)
    assert since == "33"
    listed = [
        authority(name, version=each)
        for name, each in (("same", 5), ("changed", 8), ("equal", 15), ("deleted", 7), ("broken", 6))
    ]
    changed, gone = cache.replace(AUTHORITIES, listed, str(version), since=since)
    assert {"changed", "deleted", "broken"} <= {each.metadata.name for each in changed}
    assert [each.metadata.name for each in gone] == ["lost"]
    assert known(cache, "changed").metadata.resource_version == "8"
    assert known(cache, "deleted") is not None
    assert known(cache, "broken") is not None
    assert cache.unreadable(AUTHORITIES, ("pki", "broken")) is None
    assert cache.newest(AUTHORITIES) == str(version)
    assert cache.put(AUTHORITIES, authority("deleted", version=version + 1))


def test_a_write_that_came_while_a_list_was_made_is_newer_than_the_list() -> None:
    cache = Cache()
    cache.put(AUTHORITIES, authority("known", version=5))
    since = cache.newest(AUTHORITIES)
    cache.put(AUTHORITIES, authority("known", version=30))
    cache.put(AUTHORITIES, authority("new", version=31))
    changed, gone = cache.replace(AUTHORITIES, [authority("known", version=5)], "20", since=since)
    assert not changed
    assert not gone
    assert known(cache, "known").metadata.resource_version == "30"
    assert known(cache, "new") is not None


def test_open_accounts_are_counted_by_credential() -> None:
    cache = Cache()
    cache.put(ACCOUNTS, account("a"))
    cache.put(ACCOUNTS, account("b", state=None))
    cache.put(ACCOUNTS, account("c", uses="other"))
    assert cache.open_accounts(("team", "cred")) == 1
    cache.put(ACCOUNTS, account("b", version=2))
    cache.put(ACCOUNTS, account("a", state="deactivated", version=2))
    assert cache.open_accounts(("team", "cred")) == 2
    cache.remove(ACCOUNTS, account("a", version=3))
    cache.replace(ACCOUNTS, [], "9")
    assert cache.open_accounts(("team", "cred")) == 0


@pytest.mark.requirement("SEC12")
def test_an_alias_of_an_account_counts_for_no_credential() -> None:
    cache = Cache()
    cache.put(ACCOUNTS, account("a"))
    cache.put(ACCOUNTS, account("alias", state=None, uses=""))
    assert [cache.open_accounts(("team", name)) for name in ("cred", "")] == [1, 0]


def test_no_account_is_kept_whole() -> None:
    cache = Cache()
    cache.put(ACCOUNTS, account())
    assert not hasattr(cache.get(ACCOUNTS, ("pki", "a")), "spec")


def test_what_was_read_live_completes_the_view() -> None:
    cache = Cache()
    for each in (secret("known", labels=OWNED), secret("gone", labels=OWNED), secret("old", labels=OWNED)):
        cache.put(SECRETS, each)
    read = {"live": secret("live", labels=OWNED), "other": secret("other"), "gone": None, "old": secret("old")}
    snapshot = Snapshot(SETTINGS, cache, {("secrets", ("pki", name)): each for name, each in read.items()})
    assert names(snapshot.all(SECRETS)) == ["pki/known", "pki/live", "pki/other", "pki/old"]
    assert names(snapshot.by_index(SECRETS, OWNER, "uid")) == ["pki/known", "pki/live"]
    assert snapshot.secret("pki", "live") is read["live"]
    assert snapshot.secret("pki", "known") is not None
    assert snapshot.secret("pki", "gone") is None


def test_an_index_follows_changes_and_deletions() -> None:
    cache = Cache()
    cache.put(SECRETS, secret("a", labels=OWNED, version=1))
    cache.put(SECRETS, secret("b", owner_uids=["uid"], version=2))
    assert names(cache.by_index(SECRETS, OWNER, "uid")) == ["pki/a", "pki/b"]
    cache.put(SECRETS, secret("a", labels={OWNER_UID: "other"}, version=3))
    assert names(cache.by_index(SECRETS, OWNER, "uid")) == ["pki/b"]
    assert names(cache.by_index(SECRETS, OWNER, "other")) == ["pki/a"]
    cache.remove(SECRETS, secret("b", version=4))
    cache.replace(SECRETS, [], "9")
    assert cache.by_index(SECRETS, OWNER, "uid") == cache.by_index(SECRETS, OWNER, "other") == []
