"""What accounts keep of their credential, and who writes it."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from acme_server.accounts.record_keeper import RecordKeeper
from acme_server.accounts.transitions import suspended
from acme_server.payloads import AccountUpdate
from kms.resources.accounts import ACMEAccount, CredentialRecord
from kms.resources.credentials import NameRules
from kms.resources.kinds import ACCOUNTS
from kms.resources.policies import DNSNameRules
from tests.support.apiobjects import ObjectKey
from tests.support.domain import KEY_ID_1, NAMESPACE, Key, World
from tests.support.eventually import in_background, until

NARROW = NameRules(dns_names=DNSNameRules(allowed=("www.example.com",)))


@pytest.fixture(autouse=True)
def required(world: World) -> None:
    world.configure(external_account_binding="Required")


def keeper_of(world: World, *, pauses: list[float] | None = None) -> RecordKeeper:
    """A keeper that does not wait."""

    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)
        world.api.succeed()
        world.credentials.silence = 0.0

    state = world.services.state
    keeper = RecordKeeper(
        state.account_index,
        cluster=world.cluster,
        accounts=state.accounts,
        credentials=world.credentials,
        clock=world.clock,
        sleep=sleep,
    )
    for (plural, namespace, name), _ in list(world.api.store.by_key.items()):
        if plural == ACCOUNTS.plural:
            account = world.api.read(ACCOUNTS, namespace, name)
            assert account is not None
            keeper.put((namespace, name), account)
    return keeper


async def written(keeper: RecordKeeper) -> None:
    """Let it write until nothing is due."""
    async with in_background(keeper.run()):
        await until(lambda: not keeper.due)


def record(world: World, account: ACMEAccount) -> CredentialRecord | None:
    stored = world.api.read(ACCOUNTS, NAMESPACE, account.metadata.name)
    assert stored is not None
    return stored.status.credential


@pytest.mark.requirement("SEC77")
async def test_an_account_keeps_the_last_word_of_its_credential(world: World) -> None:
    account = await world.bound()
    keeper = keeper_of(world)
    assert (keeper.due, record(world, account)) == (0, None), "what it said when it opened the account needs no write"
    for change, wanted in (
        ({"names": NARROW, "profiles": ("short",)}, ("Active", False)),
        ({"suspended": True}, ("Suspended", True)),
    ):
        keeper.notice(world.change_credential(**change), False)
        await written(keeper)
        kept = record(world, account)
        assert kept is not None
        assert (kept.state, kept.suspended, kept.names, kept.profiles) == (*wanted, NARROW, ("short",))
    last = world.credentials.get("team", "cred")
    assert last is not None
    world.remove_credential()
    keeper.notice(last, True)
    await written(keeper)
    kept = record(world, account)
    assert kept is not None
    assert (kept.state, kept.suspended, kept.names, kept.profiles) == ("Deleted", True, NARROW, ("short",))


@pytest.mark.requirement("SEC77")
async def test_a_server_that_begins_finds_what_happened_while_none_ran(world: World) -> None:
    account = await world.bound()
    world.remove_credential()
    keeper = keeper_of(world)
    assert keeper.due == 1
    await written(keeper)
    kept = record(world, account)
    assert kept is not None
    assert kept.state == "Deleted"
    assert keeper_of(world).due == 0


async def test_a_credential_that_is_made_again_is_recorded_under_its_new_uid(world: World) -> None:
    account = await world.bound()
    world.remove_credential()
    keeper = keeper_of(world)
    await written(keeper)
    again = world.put_credential()
    keeper.notice(again, False)
    await written(keeper)
    kept = record(world, account)
    assert kept is not None
    assert (kept.state, kept.uid) == ("Active", again.metadata.uid)


@pytest.mark.requirement("SEC77")
@pytest.mark.parametrize("unreadable", [False, True])
async def test_a_credential_that_only_this_server_does_not_see_is_not_recorded_as_deleted(
    world: World, unreadable: bool
) -> None:
    account = await world.bound()
    world.credentials.remove("team", "cred")
    if unreadable:
        world.api.store.by_key[ObjectKey("eabcredentials", "team", "cred")]["spec"]["suspended"] = "perhaps"
    keeper = keeper_of(world)
    assert keeper.due == 1
    await written(keeper)
    assert record(world, account) is None


async def test_nothing_is_recorded_while_the_watch_is_lost_or_the_api_server_away(world: World) -> None:
    account = await world.bound()
    world.remove_credential()
    pauses: list[float] = []
    keeper = keeper_of(world, pauses=pauses)
    world.credentials.silence = 3.0
    await written(keeper)
    assert pauses[:1] == [5.0]
    kept = record(world, account)
    assert kept is not None
    world.put_credential()
    keeper = keeper_of(world, pauses=pauses)
    world.api.fail_next("update", ACCOUNTS.plural, 503, times=99)
    await written(keeper)
    assert pauses.count(5.0) == 2
    kept = record(world, account)
    assert kept is not None
    assert kept.state == "Active"


async def test_accounts_that_have_ended_or_are_not_open_are_left_alone(world: World) -> None:
    credential = world.put_credential()
    ended = await world.account(Key(thumbprint="e" * 43), Binding(credential, KEY_ID_1))
    await world.services.accounts.update(world.caller(ended), AccountUpdate(status="deactivated"))
    claimed = await world.account(Key(thumbprint="c" * 43), Binding(credential, KEY_ID_1))
    world.api.put(ACCOUNTS, replace(claimed, status=type(claimed.status)()))
    stopped = await world.account(Key(thumbprint="s" * 43), Binding(credential, KEY_ID_1))
    world.api.put(ACCOUNTS, suspended(stopped, now=world.clock()))
    world.remove_credential()
    keeper = keeper_of(world)
    assert (len(keeper), keeper.due) == (1, 1)
    await written(keeper)
    kept = record(world, stopped)
    assert kept is not None
    assert (record(world, ended), record(world, claimed), kept.state) == (None, None, "Deleted")


async def test_credentials_take_turns(world: World) -> None:
    for name, count in (("many", 20), ("few", 2)):
        credential = world.put_credential(name=name)
        for number in range(count):
            await world.account(Key(thumbprint=f"{name}{number}".ljust(43, "x")), Binding(credential, KEY_ID_1))
        world.remove_credential(name)
    keeper = keeper_of(world)
    before = len(world.api.requests)
    await written(keeper)
    names = [each.name for each in world.api.requests[before:] if each.verb == "update"]
    owners = []
    for name in names:
        account = world.api.read(ACCOUNTS, NAMESPACE, name)
        assert account is not None
        assert account.credential is not None
        owners.append(account.credential[1])
    assert Counter(owners[:4]) == {"many": 2, "few": 2}
    assert len(owners) == 22


@pytest.mark.requirement("SEC77", "SEC83")
async def test_whose_clients_a_credential_is_for_outlives_it_too(world: World) -> None:
    account = await world.bound()
    keeper = keeper_of(world)
    keeper.notice(world.change_credential(client_namespace="other", shared=True), False)
    await written(keeper)
    kept = record(world, account)
    assert kept is not None
    assert (kept.client_namespace, kept.shared) == ("other", True)


@pytest.mark.requirement("SEC77")
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "made again"])
async def test_what_a_credential_said_before_it_was_deleted_outlives_it_even_if_nothing_was_written_meanwhile(
    world: World, again: bool
) -> None:
    binding = Binding(world.put_credential(), KEY_ID_1)
    accounts = [await world.account(Key(thumbprint=f"key-{each}"), binding) for each in range(3)]
    keeper = keeper_of(world)
    suspended_one = world.change_credential(suspended=True, names=NARROW)
    keeper.notice(suspended_one, False)
    world.remove_credential()
    keeper.notice(suspended_one, True)
    if again:
        keeper.notice(world.put_credential(), False)
    await written(keeper)
    for account in accounts:
        said = record(world, account)
        assert said is not None
        assert said.suspended, "before: active again"
        assert said.state == ("Suspended" if again else "Deleted")
        assert said.names == (None if again else NARROW)
