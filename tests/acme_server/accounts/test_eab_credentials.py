from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.accounts.credential_records import with_record
from acme_server.accounts.eab_credentials import Binding
from acme_server.accounts.transitions import resumed
from acme_server.problems import ACMEError, ProblemType, Refused, Unavailable
from kms.pki.names import dns_name
from kms.pki.policy import name_violations
from kms.resources.accounts import ACMEAccount
from kms.resources.core import Secret
from kms.resources.credentials import EABCredential, NameRules
from kms.resources.kinds import CREDENTIALS, SECRETS
from kms.resources.meta import ObjectMeta
from kms.resources.policies import DNSNameRules
from kms.resources.secret_names import EAB_SECRET, KEY_ID, OWNER, OWNER_UID, verification_key_name
from tests.support.apiobjects import ObjectKey
from tests.support.domain import KEY_ID_1, NAMESPACE, PROFILE, RELEASE, World, running_world

KEY = bytes(range(32))[:32]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(lambda world: world.configure(external_account_binding="Required")) as world:
        yield world


async def find(world: World, key_id: str = KEY_ID_1) -> tuple[EABCredential, bytes] | None:
    """What Enrollment asks for one after the other, once the MAC is right."""
    key = await world.services.credentials.mac_key(world.profile, key_id)
    bound = await world.services.credentials.binding(world.profile, key) if key is not None else None
    return (bound.credential, key.value) if bound is not None and key is not None else None


async def admit(world: World, account: ACMEAccount) -> None:
    await world.services.credentials.admit(account, world.profile.acme)


async def objection_to(world: World, account: ACMEAccount) -> str:
    """Why the account is refused, once its credential cannot be expected to be made again any more."""
    with pytest.raises(ACMEError) as first:
        await admit(world, account)
    if isinstance(first.value, Unavailable):
        assert first.value.detail.endswith("was deleted a moment ago.")
        account = with_record(account, None, now=world.clock() - timedelta(minutes=2))
    with pytest.raises(Refused) as caught:
        await admit(world, account)
    assert caught.value.type is ProblemType.UNAUTHORIZED
    return caught.value.detail


@pytest.mark.requirement("SEC12b", "SEC56")
async def test_the_key_of_a_cached_credential_is_read_live(world: World) -> None:
    credential = world.put_credential()
    found = await find(world)
    assert found is not None
    assert (found[0].metadata.uid, found[1]) == (credential.metadata.uid, KEY)
    assert world.calls() == ["get secrets"]


@pytest.mark.requirement("SEC12b", "SEC56")
async def test_a_key_that_was_replaced_a_moment_ago_counts_at_once(world: World) -> None:
    world.put_credential()
    name = verification_key_name(NAMESPACE, PROFILE, KEY_ID_1)
    known = world.secrets.get(RELEASE, name)
    assert known is not None
    world.api.put(SECRETS, replace(known, data={KEY_ID: KEY_ID_1.encode(), EAB_SECRET: b"bmV3"}))
    found = await find(world)
    assert found is not None
    assert found[1] == b"new"


@pytest.mark.requirement("C7")
async def test_a_credential_that_the_caches_do_not_know_yet_is_read(world: World) -> None:
    credential = world.put_credential(cached=False)
    assert await find(world) == (credential, KEY)
    assert world.calls() == ["get secrets", "get eabcredentials"]


@pytest.mark.requirement("C6", "C7")
async def test_an_api_server_that_is_away_is_not_a_no(world: World) -> None:
    world.api.fail_next("get", "*", 503, times=9)
    with pytest.raises(Unavailable):
        await find(world)


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        ({KEY_ID: b"other", EAB_SECRET: b"AAAA"}, {OWNER_UID: "x"}),
        ({KEY_ID: KEY_ID_1.encode()}, {OWNER_UID: "x"}),
        ({KEY_ID: KEY_ID_1.encode(), EAB_SECRET: b""}, {OWNER_UID: "x"}),
        ({KEY_ID: KEY_ID_1.encode(), EAB_SECRET: b"AAA="}, {OWNER_UID: "x"}),
        ({KEY_ID: KEY_ID_1.encode(), EAB_SECRET: b"\xff"}, {OWNER_UID: "x"}),
        ({KEY_ID: KEY_ID_1.encode(), EAB_SECRET: b"AAAA"}, {}),
        ({KEY_ID: KEY_ID_1.encode(), EAB_SECRET: b"AAAA"}, {OWNER_UID: "x"}),
    ],
    ids=["another kid", "no key", "an empty key", "padding", "not text", "no owner", "an owner that is gone"],
)
async def test_a_secret_that_is_not_in_order_opens_nothing(
    world: World, data: dict[str, bytes], labels: dict[str, str]
) -> None:
    name = verification_key_name(NAMESPACE, PROFILE, KEY_ID_1)
    meta = ObjectMeta(namespace=RELEASE, name=name, labels=labels, annotations={OWNER: "EABCredential team/cred"})
    world.api.put(SECRETS, Secret(metadata=meta, data=data))
    assert await find(world) is None


async def test_an_owner_that_took_the_name_of_another_is_none(world: World) -> None:
    world.put_credential(cached=False)
    world.api.remove(CREDENTIALS, "team", "cred")
    world.api.put(CREDENTIALS, replace(world.put_credential("key-2"), metadata=ObjectMeta(namespace="team", name="x")))
    world.credentials.remove("team", "cred")
    assert await find(world) is None


@pytest.mark.requirement("SEC12b")
async def test_the_rules_of_the_credential_narrow_the_policy_even_after_its_deletion(world: World) -> None:
    names = NameRules(dns_names=DNSNameRules(allowed=("www.example.com",)))
    credential = world.put_credential(names=names)
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    for _ in range(2):
        narrowing = world.services.credentials.narrowing(account)
        assert narrowing is not None
        assert narrowing.name == "team/cred"
        assert not name_violations([dns_name("www.example.com")], world.profile.policy, narrowing)
        assert name_violations([dns_name("api.example.com")], world.profile.policy, narrowing)
        world.credentials.remove("team", "cred")
    assert world.services.credentials.of_account(account) is None


async def test_the_rules_of_the_credential_count_as_they_are_now(world: World) -> None:
    credential = world.put_credential(names=NameRules(dns_names=DNSNameRules(allowed=("www.example.com",))))
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    world.credentials.put(replace(credential, spec=replace(credential.spec, names=None)))
    assert world.services.credentials.narrowing(account) is None


async def test_an_account_without_a_binding_is_not_narrowed(world: World) -> None:
    world.configure(external_account_binding="Disabled")
    account = await world.account()
    assert world.services.credentials.narrowing(account) is None
    before = len(world.calls())
    await admit(world, account)
    assert world.calls(before) == []


async def test_rules_that_make_no_sense_allow_nothing(world: World) -> None:
    credential = world.put_credential(names=NameRules(dns_names=DNSNameRules(allowed=("",))))
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    with pytest.raises(Unavailable):
        world.services.credentials.narrowing(account)


# Whether an account may act


@pytest.mark.requirement("SEC77")
async def test_an_account_acts_while_its_credential_is_there_and_that_costs_no_read(world: World) -> None:
    account = await world.bound()
    before = len(world.calls())
    await admit(world, account)
    assert world.calls(before) == []


@pytest.mark.requirement("SEC77", "SEC56")
async def test_a_refusal_is_based_on_a_live_read(world: World) -> None:
    account = await world.bound()
    world.credentials.remove("team", "cred")  # the watch is behind: the credential was made again
    before = len(world.calls())
    await admit(world, account)
    assert world.calls(before) == ["get eabcredentials"]
    assert world.services.credentials.of_account(account) is not None
    world.remove_credential()
    assert await objection_to(world, account) == "The account's EAB credential team/cred was deleted."


@pytest.mark.requirement("SEC77")
async def test_a_credential_that_a_finalizer_keeps_from_its_deletion_is_gone_for_its_accounts(world: World) -> None:
    credential = world.put_credential()
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    world.api.store.by_key[ObjectKey("eabcredentials", "team", "cred")]["metadata"]["deletionTimestamp"] = (
        f"{world.clock():%Y-%m-%dT%H:%M:%SZ}"
    )
    terminating = world.api.read(CREDENTIALS, "team", "cred")
    assert terminating is not None
    world.credentials.put(terminating)
    assert "was deleted" in await objection_to(world, account)
    with pytest.raises(Refused, match="was deleted"):
        await world.services.credentials.confirm(world.profile, Binding(credential, KEY_ID_1))
    kept = with_record(account, world.services.credentials.of_account(account), now=world.clock())
    assert kept.status.credential is not None
    assert kept.status.credential.state == "Deleted"
    assert world.services.record_keeper.due == 1


async def test_many_refusals_at_once_share_their_reads(world: World) -> None:
    account = await world.bound()
    world.remove_credential()
    before = len(world.calls())
    refused = await asyncio.gather(*(admit(world, account) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in refused)
    assert len(world.calls(before)) <= 2


@pytest.mark.requirement("SEC77", "SEC56")
@pytest.mark.parametrize("unknown", ["not listed yet", "watch lost"])
async def test_while_the_server_cannot_know_it_reads(world: World, unknown: str) -> None:
    account = await world.bound()
    world.api.remove(CREDENTIALS, "team", "cred")
    await admit(world, account)  # the event is still on its way
    if unknown == "not listed yet":
        world.credentials.synced.clear()
    else:
        world.credentials.silence = 1.0
    assert "was deleted" in await objection_to(world, account)
    world.api.fail_next("get", CREDENTIALS.plural, 503, times=9)
    with pytest.raises(Unavailable):
        await admit(world, account)


@pytest.mark.requirement("SEC77")
async def test_a_credential_that_cannot_be_read_denies_until_it_can(world: World) -> None:
    account = await world.bound()
    world.credentials.remove("team", "cred")
    world.api.store.by_key[ObjectKey("eabcredentials", "team", "cred")]["spec"]["suspended"] = "perhaps"
    with pytest.raises(Unavailable) as caught:
        await admit(world, account)
    assert "needs repair" in caught.value.detail


@pytest.mark.requirement("SEC77")
async def test_whoever_replaces_a_credential_makes_its_accounts_wait_and_not_fail(world: World) -> None:
    account = await world.bound()
    world.remove_credential()
    account = with_record(account, None, now=world.clock())
    for ahead, wanted in ((0, Unavailable), (59, Unavailable), (61, Refused)):
        world.clock.ahead = timedelta(seconds=ahead)
        with pytest.raises(wanted):
            await admit(world, account)
    world.put_credential()
    await admit(world, account)


@pytest.mark.requirement("SEC77")
async def test_a_credential_that_is_made_again_has_its_accounts_again_within_what_it_says_now(world: World) -> None:
    account = await world.bound(profiles=("short",))
    world.remove_credential()
    await objection_to(world, account)
    again = world.put_credential(names=NameRules(dns_names=DNSNameRules(allowed=("www.example.com",))), profiles=())
    assert again.metadata.uid != (account.spec.external_account and account.spec.external_account.uid)
    await admit(world, account)
    narrowing = world.services.credentials.narrowing(account)
    assert name_violations([dns_name("api.example.com")], world.profile.policy, narrowing)
    with pytest.raises(Refused):
        world.services.credentials.admit_profile(account, "short")
    world.change_credential(suspended=True)
    assert "is suspended" in await objection_to(world, account)


@pytest.mark.requirement("SEC77", "SEC12c")
async def test_a_credential_of_the_same_name_for_another_profile_is_another_one(world: World) -> None:
    account = await world.bound()
    world.remove_credential()
    world.put_credential(profile="other")
    assert "was deleted" in await objection_to(world, account)


@pytest.mark.requirement("SEC77")
async def test_where_the_profile_keeps_accounts_they_go_on_within_what_the_credential_said_last(world: World) -> None:
    world.configure(external_account_binding="Required", credential_deletion="KeepAccounts")
    account = await world.bound()
    narrowed = world.change_credential(
        names=NameRules(dns_names=DNSNameRules(allowed=("www.example.com",))), profiles=("short",)
    )
    account = with_record(account, narrowed, now=world.clock())
    world.remove_credential()
    await admit(world, account)
    narrowing = world.services.credentials.narrowing(account)
    assert name_violations([dns_name("api.example.com")], world.profile.policy, narrowing)
    world.services.credentials.admit_profile(account, "short")
    with pytest.raises(Refused):
        world.services.credentials.admit_profile(account, "long")
    suspended = replace(narrowed, spec=replace(narrowed.spec, suspended=True))
    account = with_record(with_record(account, suspended, now=world.clock()), None, now=world.clock())
    assert "was suspended when it was deleted" in await objection_to(world, account)


@pytest.mark.requirement("SEC77")
async def test_a_suspension_outlives_the_credential_that_said_so(world: World) -> None:
    now = world.clock()
    account = await world.bound()
    account = with_record(account, world.change_credential(suspended=True), now=now)
    world.remove_credential()
    account = with_record(account, None, now=now)
    again = world.put_credential()
    account = with_record(account, again, now=now)
    assert account.status.credential is not None
    assert account.status.credential.state == "Suspended"
    assert "was suspended when it was deleted" in await objection_to(world, account)
    await admit(world, resumed(account, now=now))
    # The new object lifts it, too, by its own end of a suspension of its own.
    account = with_record(account, world.change_credential(suspended=True), now=now)
    account = with_record(account, world.change_credential(suspended=False), now=now)
    await admit(world, account)


@pytest.mark.requirement("SEC77")
async def test_accounts_that_are_kept_follow_a_credential_that_this_server_does_not_see(world: World) -> None:
    world.configure(external_account_binding="Required", credential_deletion="KeepAccounts")
    account = await world.bound()
    world.change_credential(suspended=True)
    world.credentials.remove("team", "cred")  # as if its namespace were not watched
    assert "is suspended" in await objection_to(world, account)
    world.api.remove(CREDENTIALS, "team", "cred")
    await admit(world, account)
    gone = with_record(account, None, now=world.clock())
    before = len(world.api.requests)
    await admit(world, gone)
    assert world.calls(before) == [], "it is known to be gone"
