"""Key changes, and what may happen at the same time, on two servers (RFC 8555, 7.3.5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.accounts.key_rollover import KeyInUse
from acme_server.api.problems import status_of
from acme_server.jose.jwk import thumbprint
from acme_server.model import KeyHolder
from acme_server.payloads import AccountUpdate, NewAccount
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.state.account_keys import account_name
from kms.resources.accounts import CLIENT_NAMESPACE, AccountStatus, ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import LocalRef
from tests.support import pki
from tests.support.domain import KEY_ID_1, NAMESPACE, PROFILE, Key, World, running_world
from tests.support.refusals import refusal

FIRST = Key()
SECOND = Key(jwk='"second"', thumbprint="second")
THIRD = Key(jwk='"third"', thumbprint="third")
AGREED = NewAccount(terms_of_service_agreed=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        world.sole_writer = False
        yield world


def named(key: Key) -> str:
    return account_name(NAMESPACE, PROFILE, key.thumbprint)


def stored(world: World, key: Key) -> ACMEAccount | None:
    """The object that has the name of the key."""
    return world.api.read(ACCOUNTS, NAMESPACE, named(key))


def objects(world: World) -> int:
    return sum(key.plural == ACCOUNTS.plural for key in world.api.store.by_key)


async def change(world: World, account: ACMEAccount, to: Key, *, old: Key = FIRST) -> ACMEAccount:
    return await world.services.accounts.change_key(world.caller(account), to, old=old.thumbprint)


async def find(world: World, key: Key) -> ACMEAccount | None:
    return await world.services.accounts.find(world.profile, key.thumbprint)


@pytest.mark.requirement("M98", "M99")
async def test_the_account_keeps_its_name_and_the_new_key_leads_to_it(world: World, account: ACMEAccount) -> None:
    changed = await change(world, account, SECOND)
    assert changed.metadata.name == account.metadata.name
    assert changed.thumbprint == "second"
    for server in (world, world.another()):
        assert await find(server, SECOND) == changed
        assert await find(server, FIRST) is None
        assert await server.services.accounts.by_id(server.profile, account.metadata.name) == changed
    alias = stored(world, SECOND)
    assert alias is not None
    assert alias.spec.alias_of == LocalRef(name=account.metadata.name)
    assert (alias.spec.key, alias.spec.thumbprint) == ('"second"', "second")
    assert alias.status == AccountStatus()
    assert alias.metadata.owner_references == (), "the garbage collector deletes it after the account"


async def test_a_change_is_two_writes_and_no_read(world: World, account: ACMEAccount) -> None:
    before = len(world.api.requests)
    await change(world, account, SECOND)
    assert world.calls(before) == ["create acmeaccounts", "update acmeaccounts"]


@pytest.mark.requirement("M83", "M98")
async def test_an_alias_is_no_account_under_its_own_name(world: World, account: ACMEAccount) -> None:
    await change(world, account, SECOND)
    for server in (world, world.another()):
        assert await server.services.accounts.by_id(server.profile, named(SECOND)) is None


@pytest.mark.requirement("M76", "M82")
async def test_who_registers_with_the_new_key_gets_the_account(world: World, account: ACMEAccount) -> None:
    changed = await change(world, account, SECOND)
    other = world.another()
    again, opened = await other.services.accounts.register(KeyHolder(other.profile, SECOND), AGREED, None)
    assert (again, opened) == (changed, False)
    assert objects(world) == 2


@pytest.mark.requirement("M83")
@pytest.mark.parametrize("replaced", [FIRST, SECOND], ids=["the first key", "a later key"])
async def test_a_key_that_was_replaced_opens_no_account(world: World, account: ACMEAccount, replaced: Key) -> None:
    account = await change(world, account, SECOND)
    account = await change(world, account, THIRD, old=SECOND)
    world.clock.ahead = timedelta(hours=1)
    for server in (world, world.another()):
        caught = await refusal(server.services.accounts.register(KeyHolder(server.profile, replaced), AGREED, None))
        assert caught.type is ProblemType.BAD_PUBLIC_KEY
        assert "has changed its key" in caught.detail
    assert objects(world) == 3


async def test_an_account_may_go_back_to_a_key_that_it_had(world: World, account: ACMEAccount) -> None:
    account = await change(world, account, SECOND)
    account = await change(world, account, THIRD, old=SECOND)
    world.clock.ahead = timedelta(hours=1)
    account = await change(world, account, SECOND, old=THIRD)
    assert await find(world, SECOND) == account
    account = await change(world, account, FIRST, old=SECOND)
    assert await find(world, FIRST) == account
    assert await find(world, THIRD) is None
    assert objects(world) == 3


@pytest.mark.requirement("M98", "SEC23")
async def test_a_key_that_an_account_has_or_had_is_in_use(world: World, account: ACMEAccount) -> None:
    other = await world.account(SECOND)
    in_use = await refusal(change(world, account, SECOND))
    assert isinstance(in_use, KeyInUse)
    assert in_use.account.metadata.name == other.metadata.name
    other = await change(world, other, THIRD, old=SECOND)
    world.clock.ahead = timedelta(hours=1)
    for taken in (SECOND, THIRD):
        in_use = await refusal(change(world, account, taken))
        assert isinstance(in_use, KeyInUse)
        assert in_use.account == other
    own = await refusal(change(world, account, FIRST))
    assert isinstance(own, KeyInUse)
    assert own.account.metadata.name == account.metadata.name
    assert objects(world) == 3


@pytest.mark.requirement("SEC25")
async def test_a_compromised_key_becomes_nobodys_key(world: World, account: ACMEAccount) -> None:
    compromised = Key(pki.key(which="lost").public_key(), jwk='"lost"', thumbprint="lost")
    world.compromise(compromised.public_key)
    assert (await refusal(change(world, account, compromised))).type is ProblemType.BAD_PUBLIC_KEY
    caught = await refusal(world.services.accounts.register(KeyHolder(world.profile, compromised), AGREED, None))
    assert caught.type is ProblemType.BAD_PUBLIC_KEY
    assert "compromised" in caught.detail
    assert objects(world) == 1


@pytest.mark.requirement("SEC07", "M103")
async def test_an_account_that_another_server_has_ended_gets_no_key_and_leaves_no_alias(
    world: World, account: ACMEAccount
) -> None:
    other = world.another()
    await other.services.accounts.update(world.caller(account), AccountUpdate(status="deactivated"))
    assert status_of(await refusal(change(world, account, SECOND))) == 401
    assert objects(world) == 1


# Races


@pytest.mark.requirement("SEC23")
async def test_of_two_changes_to_different_keys_at_once_one_wins_and_the_other_leaves_nothing(world: World) -> None:
    other = world.another()
    for number in range(5):
        first = Key(thumbprint=f"first-{number}")
        account = await world.account(first)
        targets = [Key(thumbprint=f"{side}-{number}") for side in ("left", "right")]
        results = await asyncio.gather(
            change(world, account, targets[0], old=first),
            change(other, account, targets[1], old=first),
            return_exceptions=True,
        )
        (won,) = [each for each in results if not isinstance(each, BaseException)]
        (lost,) = [each for each in results if isinstance(each, BaseException)]
        assert isinstance(lost, Refused)
        assert lost.type is ProblemType.MALFORMED
        (loser,) = [each for each in targets if each.thumbprint != won.thumbprint]
        assert stored(world, loser) is None
        assert await find(other, loser) is None
        # The key that lost is as good as new.
        assert (await other.account(loser)).thumbprint == loser.thumbprint


@pytest.mark.requirement("SEC23")
async def test_of_many_changes_to_one_key_at_once_one_wins(world: World, account: ACMEAccount) -> None:
    servers = [world, world.another(), world.another(replica="server-2")]
    results = await asyncio.gather(
        *(change(servers[number % 3], account, SECOND) for number in range(9)), return_exceptions=True
    )
    assert sum(isinstance(each, ACMEAccount) for each in results) == 1
    assert all(isinstance(each, ACMEAccount | Refused | Unavailable) for each in results)
    for server in servers:
        found = await find(server, SECOND)
        assert found is not None
        assert found.metadata.name == account.metadata.name
    assert objects(world) == 2


@pytest.mark.requirement("M83", "SEC23")
async def test_of_two_accounts_that_want_one_key_at_once_one_gets_it(world: World) -> None:
    other = world.another()
    mine, its = await world.account(FIRST), await world.account(THIRD)
    results = await asyncio.gather(
        change(world, mine, SECOND), change(other, its, SECOND, old=THIRD), return_exceptions=True
    )
    assert sum(isinstance(each, ACMEAccount) for each in results) == 1, results
    holders = [await world.services.accounts.read(each) for each in (mine, its)]
    assert sum(each.thumbprint == "second" for each in holders) == 1
    assert objects(world) == 3


@pytest.mark.requirement("M83")
async def test_a_key_that_is_registered_and_becomes_the_key_of_an_account_at_once_has_one_account(
    world: World,
) -> None:
    other = world.another()
    for number in range(8):
        first, wanted = Key(thumbprint=f"first-{number}"), Key(thumbprint=f"wanted-{number}")
        account = await world.account(first)
        contest = [
            change(world, account, wanted, old=first),
            other.services.accounts.register(KeyHolder(other.profile, wanted), AGREED, None),
        ]
        await asyncio.gather(*contest[:: 1 if number % 2 else -1], return_exceptions=True)
        live = [await world.services.accounts.read(account)]
        registered = stored(world, wanted)
        if registered is not None and registered.spec.alias_of is None and registered.status.state == "valid":
            live.append(registered)
        assert sum(each.thumbprint == wanted.thumbprint for each in live) == 1


@pytest.mark.requirement("M83")
@pytest.mark.parametrize("crashed", ["before the account was written", "without an answer"])
async def test_a_change_that_a_crash_interrupts_gives_its_key_back_after_a_minute_or_is_done(
    world: World, account: ACMEAccount, crashed: str
) -> None:
    done = crashed == "without an answer"
    world.api.fail_next("update", ACCOUNTS.plural, 503, done=done)
    with pytest.raises(Unavailable):
        await change(world, account, SECOND)
    other = world.another()
    if done:
        assert (await find(other, SECOND)) == await other.services.accounts.read(account)
        return
    assert await find(other, SECOND) is None
    assert await find(other, FIRST) is not None
    with pytest.raises(Unavailable):  # 503: whoever comes meanwhile may come again
        await other.services.accounts.register(KeyHolder(other.profile, SECOND), AGREED, None)
    with pytest.raises(Unavailable):
        await change(other, account, SECOND)
    world.clock.ahead = timedelta(seconds=61)
    opened, created = await other.services.accounts.register(KeyHolder(other.profile, SECOND), AGREED, None)
    assert created
    assert opened.metadata.name == named(SECOND)
    assert isinstance(await refusal(change(world, account, SECOND)), KeyInUse)


async def test_a_change_that_was_interrupted_can_be_made_again(world: World, account: ACMEAccount) -> None:
    world.api.fail_next("update", ACCOUNTS.plural, 503)
    with pytest.raises(Unavailable):
        await change(world, account, SECOND)
    world.clock.ahead = timedelta(seconds=61)
    changed = await change(world.another(), account, SECOND)
    assert await find(world, SECOND) == changed
    assert objects(world) == 2


async def test_a_claim_that_has_waited_for_long_is_not_confirmed(world: World, account: ACMEAccount) -> None:
    # The object of the new key is made, and then the process is held up: by now others may take the claim for dead.
    add = world.services.state.accounts.add

    async def held_up(resource: ACMEAccount) -> ACMEAccount:
        created = await add(resource)
        world.clock.ahead = timedelta(seconds=31)
        return created

    world.services.state.accounts.add = held_up  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await change(world, account, SECOND)
    current = await world.services.accounts.read(account)
    assert current.thumbprint == FIRST.thumbprint


async def test_a_registration_that_was_begun_keeps_its_key_for_a_minute(world: World, account: ACMEAccount) -> None:
    begun = await world.account(SECOND)
    world.api.put(ACCOUNTS, replace(begun, status=AccountStatus()))
    other = world.another()
    with pytest.raises(Unavailable):
        await change(other, account, SECOND)
    world.clock.ahead = timedelta(seconds=61)
    assert (await change(other, account, SECOND)).thumbprint == "second"


async def test_an_alias_that_an_earlier_account_left_behind_gives_way(world: World, account: ACMEAccount) -> None:
    await change(world, account, SECOND)
    world.api.remove(ACCOUNTS, NAMESPACE, account.metadata.name)
    other = world.another()
    later = await other.account(FIRST)  # the same name, another account
    assert await find(other, SECOND) is None
    with pytest.raises(Unavailable):
        await other.services.accounts.register(KeyHolder(other.profile, SECOND), AGREED, None)
    world.clock.ahead = timedelta(seconds=61)
    assert (await change(other, later, SECOND)).thumbprint == "second"


# What keys are good for


@pytest.mark.requirement("M115", "M157", "SEC26")
async def test_no_certificate_is_made_for_a_key_that_the_account_has_or_had(world: World, account: ACMEAccount) -> None:
    csr_key = Key(thumbprint=thumbprint(pki.key().public_key()) or "")
    account = await change(world, account, csr_key)
    order = await world.proven(account)
    for server in (world, world.another()):
        with pytest.raises(Refused, match="ACME account"):
            await server.finalized(account, order)
    account = await change(world, account, SECOND, old=csr_key)
    for server in (world, world.another()):
        with pytest.raises(Refused, match="ACME account"):
            await server.finalized(account, order)


@pytest.mark.requirement("M100")
async def test_orders_and_authorizations_are_the_accounts_as_before(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    changed = await change(world, account, SECOND)
    assert (await world.services.orders.poll(order)).status.state == "ready"
    finished = await world.finalized(changed, order)
    assert finished.status.state == "valid"


@pytest.mark.requirement("SEC23")
async def test_a_server_that_does_not_know_of_the_change_issues_nothing_for_the_old_key(
    world: World, account: ACMEAccount
) -> None:
    order = await world.proven(account)
    await change(world.another(), account, SECOND)
    assert status_of(await refusal(world.finalized(account, order))) == 401


@pytest.mark.requirement("SEC17", "M144")
async def test_a_validation_under_way_goes_on_with_the_key_that_it_was_begun_with(
    world: World, account: ACMEAccount
) -> None:
    gate = world.validator.gate = asyncio.Event()
    order = await world.order(account)
    await world.respond(order, 0, "http-01")
    account = await change(world, account, SECOND)
    gate.set()
    assert (await world.services.orders.poll(order)).status.state == "ready"
    ((_, token, key_authorization),) = world.validator.asked
    assert key_authorization == f"{token}.{FIRST.thumbprint}"
    world.validator.asked.clear()
    later = await world.order(account, "api.example.com")
    await world.respond(later, 0, "http-01")
    await world.services.orders.poll(later)
    assert world.validator.asked[0][2].endswith(".second")


async def test_a_validation_that_is_taken_up_again_asks_for_the_key_of_now(world: World, account: ACMEAccount) -> None:
    world.validator.gate = asyncio.Event()
    order = await world.order(account)
    await world.respond(order, 0, "http-01")
    assert (await world.services.orders.poll(order)).status.authorizations[0].challenges[0].state == "processing"
    await change(world, account, SECOND)
    await world.services.worker.drain(0)  # the server ends with the validation under way
    world.validator.gate, asked = None, world.validator.asked
    asked.clear()
    later = world.another()
    world.clock.ahead = timedelta(minutes=1)
    loaded = await later.services.orders.get(later.caller(account), order.metadata.name)
    assert (await later.services.orders.poll(loaded)) is not None
    await later.services.worker.drain(1)
    assert asked[0][2].endswith(".second")


@pytest.mark.requirement("SEC12")
async def test_aliases_take_no_place_under_a_credential(world: World) -> None:
    from acme_server.accounts.eab_credentials import Binding  # noqa: PLC0415 - beside its only use

    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=2), KEY_ID_1)
    account = await world.account(FIRST, binding)
    account = await change(world, account, SECOND)
    await change(world, account, Key(thumbprint="fourth"), old=SECOND)
    alias = stored(world, SECOND)
    assert alias is not None
    assert (alias.metadata.labels, alias.spec.external_account) == ({CLIENT_NAMESPACE: "team"}, None)
    assert (await world.account(THIRD, binding)).status.state == "valid"
    with pytest.raises(Refused, match="as many accounts"):
        await world.account(Key(thumbprint="fifth"), binding)
