from __future__ import annotations

import asyncio
from dataclasses import replace as changed
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from acme_server.accounts.slots import STALE
from acme_server.api.problems import status_of
from acme_server.model import KeyHolder
from acme_server.payloads import AccountUpdate, NewAccount
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.resources.accounts import AccountStatus, ACMEAccount
from kms.resources.credentials import NameRules
from kms.resources.kinds import ACCOUNTS, CREDENTIALS, SECRETS
from kms.resources.meta import ObjectMeta, key_of
from kms.resources.policies import DNSNameRules
from kms.resources.secret_names import CREDENTIAL_UID, verification_key_name
from tests.support.domain import KEY_ID_1, NAMESPACE, PROFILE, RELEASE, Key, World
from tests.support.refusals import refusal

AGREED = NewAccount(terms_of_service_agreed=True, contact=("mailto:admin@example.com",))


def keys(count: int) -> list[Key]:
    return [Key(jwk=f'{{"n":{number}}}', thumbprint=f"thumbprint-{number}") for number in range(count)]


async def register(
    world: World, key: Key | None = None, wanted: NewAccount = AGREED, binding: Binding | None = None
) -> tuple[ACMEAccount, bool]:
    return await world.services.accounts.register(KeyHolder(world.profile, key or Key()), wanted, binding)


def accounts(world: World) -> list[str]:
    return [key.name for key in world.api.store.by_key if key.plural == ACCOUNTS.plural]


@pytest.mark.requirement("M82", "M158")
async def test_an_account_is_opened_once_for_a_key(world: World) -> None:
    account, created = await register(world)
    assert created
    assert account.status == AccountStatus(
        state="valid", contact=("mailto:admin@example.com",), contact_text="admin@example.com"
    )
    assert account.spec.thumbprint == Key().thumbprint
    assert account.metadata.owner_references == (), "it outlives the profile"
    again, created = await register(world)
    assert not created
    assert again == account
    assert len(accounts(world)) == 1


@pytest.mark.requirement("SEC58")
async def test_an_account_made_by_hand_under_the_name_of_a_key_is_not_opened_for_another_key(world: World) -> None:
    """Else whoever may create accounts gets one with his own key, by the credential of the client that registers."""
    victim, attacker = keys(2)
    world.configure(external_account_binding="Required")
    binding = Binding(
        world.put_credential(names=NameRules(dns_names=DNSNameRules(allowed=("a.example.com",)))), KEY_ID_1
    )
    honest, _ = await register(world, victim, binding=binding)
    world.api.remove(ACCOUNTS, NAMESPACE, honest.metadata.name)
    external = honest.spec.external_account
    assert external is not None
    for claims in (
        {"key": attacker.jwk, "thumbprint": attacker.thumbprint},
        {"external_account": replace(external, names=None)},
        {"external_account": replace(external, client_namespace="other")},
    ):
        world.start()
        meta = ObjectMeta(namespace=NAMESPACE, name=honest.metadata.name)
        forged = world.api.put(ACCOUNTS, ACMEAccount(metadata=meta, spec=replace(honest.spec, **claims)))
        with pytest.raises(Unavailable):
            await register(world, victim, binding=binding)
        assert world.api.read(ACCOUNTS, *key_of(forged)) == forged
        world.clock.ahead += 2 * STALE
        opened, created = await register(world, victim, binding=binding)
        assert (created, opened.spec) == (True, honest.spec)
        world.api.remove(ACCOUNTS, NAMESPACE, honest.metadata.name)


@pytest.mark.requirement("M82", "M158")
async def test_parallel_requests_with_one_key_open_one_account(world: World) -> None:
    servers = [world, world.another(), world.another(replica="server-2")]
    results = await asyncio.gather(*(register(server) for server in servers for _ in range(4)))
    assert len({account.metadata.uid for account, _ in results}) == 1
    assert sum(created for _, created in results) == 1
    assert all(account.status.state == "valid" for account, _ in results)


async def test_a_known_key_is_found_wherever_it_was_registered(world: World) -> None:
    account, _ = await register(world)
    other = world.another()
    assert await other.services.accounts.find(other.profile, Key().thumbprint) == account
    assert await other.services.accounts.by_id(other.profile, account.metadata.name) == account


async def test_an_unknown_key_costs_one_read_and_a_malformed_id_none(world: World) -> None:
    before = len(world.api.requests)
    assert await world.services.accounts.find(world.profile, "unknown") is None
    assert world.calls(before) == ["get acmeaccounts"]
    assert await world.services.accounts.by_id(world.profile, "../../secrets") is None
    assert await world.services.accounts.by_id(world.profile, "A" * 52) is None
    assert world.calls(before) == ["get acmeaccounts"]


@pytest.mark.requirement("SEC04")
async def test_an_account_of_another_profile_is_none_of_this_one(world: World) -> None:
    account, _ = await register(world)
    other = changed(
        world.profile,
        resource=replace(world.profile.resource, metadata=replace(world.profile.resource.metadata, name="mail")),
    )
    assert await world.services.accounts.by_id(other, account.metadata.name) is None
    assert await world.services.accounts.find(other, Key().thumbprint) is None


async def test_an_account_that_is_not_open_yet_is_none(world: World) -> None:
    account, _ = await register(world)
    world.api.put(ACCOUNTS, replace(account, status=AccountStatus()))
    fresh = world.another()
    assert await fresh.services.accounts.by_id(fresh.profile, account.metadata.name) is None
    assert await fresh.services.accounts.find(fresh.profile, Key().thumbprint) is None
    # Registering again finishes what a server that died has begun.
    again, created = await register(fresh)
    assert not created
    assert again.status.state == "valid"


@pytest.mark.requirement("S79", "M80", "SEC37")
async def test_contacts_are_checked_before_anything_is_written(world: World) -> None:
    refused = await refusal(register(world, wanted=NewAccount(contact=("tel:+123",))))
    assert refused.type == ProblemType.UNSUPPORTED_CONTACT
    assert accounts(world) == []


async def test_an_optional_binding_may_be_left_out_and_counts_when_it_is_there(world: World) -> None:
    world.configure(external_account_binding="Optional")
    account, _ = await register(world)
    assert account.spec.external_account is None
    credential = world.put_credential()
    bound, _ = await register(world, Key(thumbprint="other"), binding=Binding(credential, KEY_ID_1))
    assert bound.spec.external_account is not None


@pytest.mark.requirement("M94")
async def test_where_bindings_are_disabled_they_are_dropped(world: World) -> None:
    account, _ = await register(world, binding=Binding(world.put_credential(), KEY_ID_1))
    assert account.spec.external_account is None
    assert account.metadata.labels == {}


async def test_the_binding_is_kept_with_the_account(world: World) -> None:
    world.configure(external_account_binding="Required")
    credential = world.put_credential()
    account, _ = await register(world, binding=Binding(credential, KEY_ID_1))
    bound = account.spec.external_account
    assert bound is not None
    assert (bound.namespace, bound.name, bound.uid, bound.key_id) == ("team", "cred", credential.metadata.uid, KEY_ID_1)
    assert account.metadata.labels == {CREDENTIAL_UID: credential.metadata.uid}


@pytest.mark.requirement("SEC12b", "SEC56")
async def test_a_credential_is_asked_live_whether_it_still_opens_accounts(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(), KEY_ID_1)
    world.api.put(CREDENTIALS, replace(binding.credential, spec=replace(binding.credential.spec, suspended=True)))
    assert "suspended" in (await refusal(register(world, binding=binding))).detail
    expired = world.clock() - timedelta(seconds=1)
    world.api.put(CREDENTIALS, replace(binding.credential, spec=replace(binding.credential.spec, expires_at=expired)))
    refused = await refusal(register(world, binding=binding))
    assert refused.type == ProblemType.UNAUTHORIZED
    assert "expired" in refused.detail
    world.api.remove(CREDENTIALS, "team", "cred")
    assert "deleted" in (await refusal(register(world, binding=binding))).detail
    assert accounts(world) == []


@pytest.mark.requirement("SEC12b")
async def test_a_credential_that_was_rotated_or_made_anew_opens_nothing(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(), KEY_ID_1)
    world.api.remove(SECRETS, RELEASE, verification_key_name(NAMESPACE, PROFILE, KEY_ID_1))
    assert "replaced" in (await refusal(register(world, binding=binding))).detail
    world.api.remove(CREDENTIALS, "team", "cred")
    world.put_credential()
    assert "deleted" in (await refusal(register(world, binding=binding))).detail


@pytest.mark.requirement("C6")
async def test_while_the_api_server_is_away_no_account_is_opened_or_refused(world: World) -> None:
    world.api.fail_next("*", "*", 503, times=99)
    with pytest.raises(Unavailable):
        await register(world)
    with pytest.raises(Unavailable):
        await world.services.accounts.find(world.profile, "unknown")


@pytest.mark.requirement("S154", "SEC12", "SEC38", "SEC62")
@pytest.mark.parametrize("maximum", [1, 3])
async def test_a_credential_opens_as_many_accounts_as_it_may_and_the_others_leave_nothing(
    world: World, maximum: int
) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=maximum), KEY_ID_1)
    servers = [world, world.another(), world.another(replica="server-2")]
    results = await asyncio.gather(
        *(register(servers[number % 3], key, binding=binding) for number, key in enumerate(keys(12))),
        return_exceptions=True,
    )
    opened = [each for each in results if not isinstance(each, BaseException)]
    refused = [each for each in results if isinstance(each, Refused)]
    assert len(opened) == maximum
    assert len(refused) == 12 - maximum
    assert all(each.type == ProblemType.UNAUTHORIZED for each in refused)
    assert len(accounts(world)) == maximum


@pytest.mark.requirement("SEC74", "SEC38")
async def test_opening_an_account_reads_no_other_accounts_of_the_credential(world: World) -> None:
    """An account may hold 70 kB of names, so a list of a thousand would take 70 MB of memory for each request."""
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=5), KEY_ID_1)
    for key in keys(3):
        await register(world, key, binding=binding)
    before = len(world.api.requests)
    await register(world, Key(thumbprint="x" * 43), binding=binding)
    listed = [each for each in world.api.requests[before:] if each.verb == "list" and each.plural == "acmeaccounts"]
    assert [each.limit for each in listed] == [500, 500]
    world.api.fail_next("list", "acmeaccounts", 410)
    with pytest.raises(Unavailable):
        await register(world, Key(thumbprint="y" * 43), binding=binding)


@pytest.mark.requirement("C18")
async def test_a_deactivated_account_keeps_its_place(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=1), KEY_ID_1)
    account, _ = await register(world, binding=binding)
    await world.services.accounts.update(world.caller(account), AccountUpdate(status="deactivated"))
    assert "as many accounts" in (await refusal(register(world, binding=binding, key=Key(thumbprint="other")))).detail


@pytest.mark.requirement("SEC77", "SEC38")
async def test_a_credential_that_is_made_again_opens_no_more_accounts_than_before(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=1), KEY_ID_1)
    await register(world, binding=binding)
    world.remove_credential()
    again = Binding(world.put_credential(maximum_accounts=1), KEY_ID_1)
    assert "as many accounts" in (await refusal(register(world, binding=again, key=Key(thumbprint="other")))).detail


async def test_places_of_servers_that_died_are_given_to_others(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=1), KEY_ID_1)
    account, _ = await register(world, binding=binding)
    world.api.put(ACCOUNTS, replace(account, status=AccountStatus()))
    later = world.another()
    assert await later.services.accounts.find(later.profile, Key().thumbprint) is None
    with pytest.raises(Refused):
        await register(later, Key(thumbprint="other"), binding=binding)
    world.clock.ahead = timedelta(minutes=2)
    opened, created = await register(later, Key(thumbprint="other"), binding=binding)
    assert created
    assert accounts(world) == [opened.metadata.name]


async def test_a_place_that_is_taken_in_the_last_moment_stays_taken(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=1), KEY_ID_1)
    account, _ = await register(world, binding=binding)
    world.api.put(ACCOUNTS, replace(account, status=AccountStatus()))
    world.clock.ahead = timedelta(minutes=2)
    # Whoever seemed to be dead opens the account between our list and our deletion.
    world.api.fail_next("delete", ACCOUNTS.plural, 409)
    later = world.another()
    assert "as many accounts" in (await refusal(register(later, binding=binding, key=Key(thumbprint="other")))).detail


async def test_an_account_left_behind_with_another_credential_gives_way(world: World) -> None:
    world.configure(external_account_binding="Optional")
    account, _ = await register(world)
    world.api.put(ACCOUNTS, replace(account, status=AccountStatus()))
    later = world.another()
    binding = Binding(world.put_credential(), KEY_ID_1)
    with pytest.raises(Unavailable):
        await register(later, binding=binding)
    world.clock.ahead = timedelta(minutes=2)
    opened, created = await register(later, binding=binding)
    assert created
    assert opened.spec.external_account is not None


async def test_an_account_that_disappears_while_it_is_opened_is_opened_again(world: World) -> None:
    world.api.fail_next("update", ACCOUNTS.plural, 404, times=2)
    account, _ = await register(world)
    assert account.status.state == "valid"
    world.api.fail_next("update", ACCOUNTS.plural, 404, times=3)
    with pytest.raises(Unavailable):
        await register(world, Key(thumbprint="other"))


async def test_an_account_that_is_removed_between_create_and_read_is_unavailable(world: World) -> None:
    await register(world)
    later = world.another()
    world.api.fail_next("get", ACCOUNTS.plural, 404)
    with pytest.raises(Unavailable):
        await register(later)


@pytest.mark.requirement("M84", "M85")
async def test_contacts_are_replaced_and_nothing_else_is_changed(world: World) -> None:
    account, _ = await register(world)
    updated = await world.services.accounts.update(
        world.caller(account), AccountUpdate(contact=("mailto:new@example.com",))
    )
    assert (updated.status.contact, updated.status.contact_text) == (("mailto:new@example.com",), "new@example.com")
    none = await world.services.accounts.update(world.caller(updated), AccountUpdate(contact=()))
    assert (none.status.contact, none.status.contact_text) == ((), None)
    same = await world.services.accounts.update(world.caller(updated), AccountUpdate(status="revoked"))
    assert same.status.state == "valid"
    assert (
        await refusal(world.services.accounts.update(world.caller(account), AccountUpdate(contact=("mailto:",))))
    ).type == ProblemType.INVALID_CONTACT


@pytest.mark.requirement("M70", "M102", "M103")
async def test_deactivation_is_final(world: World) -> None:
    account, _ = await register(world)
    gone = await world.services.accounts.update(world.caller(account), AccountUpdate(status="deactivated"))
    assert gone.status.state == "deactivated"
    assert gone.status.deactivated_at is not None
    again = await world.services.accounts.update(world.caller(gone), AccountUpdate(status="deactivated"))
    assert again == gone
    for stale in (account, gone):
        assert (
            status_of(
                await refusal(
                    world.services.accounts.update(
                        world.caller(stale), AccountUpdate(contact=("mailto:new@example.com",))
                    )
                )
            )
            == 401
        )
    assert status_of(await refusal(world.services.accounts.update(world.caller(gone), AccountUpdate()))) == 401
    assert status_of(await refusal(register(world))) == 401


async def test_an_account_that_is_not_open_cannot_be_deactivated(world: World) -> None:
    account, _ = await register(world)
    unopened = world.api.put(ACCOUNTS, replace(account, status=AccountStatus()))
    later = world.another()
    assert (
        status_of(
            await refusal(later.services.accounts.update(world.caller(unopened), AccountUpdate(status="deactivated")))
        )
        == 404
    )


async def test_an_account_is_shown_as_another_server_has_just_changed_it(world: World) -> None:
    account, _ = await register(world)
    contact = ("mailto:other@example.com",)
    world.api.put(ACCOUNTS, replace(account, status=replace(account.status, contact=contact)))
    assert (await world.services.accounts.read(account)).status.contact == contact
    assert (await world.services.accounts.update(world.caller(account), AccountUpdate())).status.contact == contact
    world.api.put(ACCOUNTS, replace(account, status=replace(account.status, state="deactivated")))
    assert status_of(await refusal(world.services.accounts.read(account))) == 401


async def test_an_account_that_was_removed_is_not_shown(world: World) -> None:
    account, _ = await register(world)
    world.api.remove(ACCOUNTS, account.metadata.namespace, account.metadata.name)
    assert status_of(await refusal(world.services.accounts.read(account))) == 404
