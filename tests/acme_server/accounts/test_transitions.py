from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.accounts import slots, transitions
from acme_server.api.problems import status_of
from acme_server.problems import ProblemType, Refused
from kms.resources.accounts import AccountStatus, ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import LocalRef
from tests.support.accounts import account
from tests.support.acmeorders import NOW
from tests.support.crds import schema
from tests.support.domain import Key

FIRST = "t" * 43


def valid() -> ACMEAccount:
    return transitions.opened(account("a"), status=AccountStatus(state="valid", contact=("mailto:a@example.com",)))


def changed(to: str, before: ACMEAccount, *, old: str | None = None) -> ACMEAccount:
    return transitions.with_key(before, Key(jwk=f'"{to}"', thumbprint=to), old=old or before.thumbprint, now=NOW)


@pytest.mark.requirement("M97", "M99")
def test_another_key_takes_the_place_of_the_old_one_and_nothing_else_changes() -> None:
    before = valid()
    after = changed("second", before)
    assert (after.thumbprint, after.jwk) == ("second", '"second"')
    assert after.status.key is not None
    assert after.status.key.changed_at == NOW
    assert after.status.former_keys == (FIRST,)
    assert replace(after, status=before.status) == before
    assert replace(after.status, key=None, former_keys=()) == before.status


@pytest.mark.requirement("M97", "SEC23")
def test_a_key_that_is_not_in_force_any_more_replaces_nothing() -> None:
    after = changed("second", valid())
    with pytest.raises(Refused) as caught:
        changed("third", after, old=FIRST)
    assert (caught.value.type, status_of(caught.value)) == (ProblemType.MALFORMED, 400)
    assert "oldKey" in caught.value.detail


def test_an_account_may_go_back_to_a_key_that_it_had_and_remembers_each_once() -> None:
    after = valid()
    for to in ("second", FIRST, "second", "third"):
        after = changed(to, after)
    assert after.thumbprint == "third"
    assert after.status.former_keys == (FIRST, "second")
    assert all(transitions.has_had(after, each) for each in (FIRST, "second", "third"))
    assert not transitions.has_had(after, "fourth")


def test_the_first_key_counts_as_one_that_the_account_had() -> None:
    assert transitions.has_had(valid(), FIRST)


@pytest.mark.parametrize("state", ["deactivated", "revoked", None])
def test_only_a_valid_account_changes_its_key(state: str | None) -> None:
    with pytest.raises(Refused) as caught:
        changed("second", replace(valid(), status=AccountStatus(state=state)))  # type: ignore[arg-type]
    assert status_of(caught.value) == 401


@pytest.mark.requirement("SEC38")
def test_an_account_changes_its_key_so_many_times_and_no_more() -> None:
    after = valid()
    for number in range(transitions.MAXIMUM_FORMER_KEYS):
        after = changed(f"key-{number}", after)
    with pytest.raises(Refused) as caught:
        changed("one too many", after)
    assert "open a new account" in caught.value.detail
    with pytest.raises(Refused):  # also back to an own key: the one that it has now would be one more
        changed(FIRST, after)


def test_the_schema_has_room_for_as_many_keys() -> None:
    former = schema(ACCOUNTS)["properties"]["status"]["properties"]["formerKeys"]
    assert former["maxItems"] == transitions.MAXIMUM_FORMER_KEYS


def test_an_alias_is_never_open_whatever_its_status_says() -> None:
    alias = replace(valid(), spec=replace(valid().spec, alias_of=LocalRef(name="b")))
    assert slots.is_open(valid())
    assert not slots.is_open(alias)


@pytest.mark.requirement("M86")
def test_agreeing_changes_only_what_was_agreed_to() -> None:
    after = transitions.agreed(valid(), terms="https://example.com/2")
    assert after.status == replace(valid().status, terms_of_service_agreed="https://example.com/2")
    gone = transitions.deactivated(valid(), now=NOW + timedelta(seconds=1))
    with pytest.raises(Refused):
        transitions.agreed(gone, terms="https://example.com/2")
