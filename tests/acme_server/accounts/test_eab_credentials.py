from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from acme_server.problems import Unavailable
from kms.pki.names import dns_name
from kms.pki.policy import name_violations
from kms.resources.core import Secret
from kms.resources.credentials import EABCredential, NameRules
from kms.resources.kinds import CREDENTIALS, SECRETS
from kms.resources.meta import ObjectMeta
from kms.resources.policies import DNSNameRules
from kms.resources.secret_names import EAB_SECRET, KEY_ID, OWNER, OWNER_UID, verification_key_name
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


async def test_a_credential_that_took_the_name_has_no_say(world: World) -> None:
    credential = world.put_credential()
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    other = replace(credential, metadata=replace(credential.metadata, uid="another"))
    world.credentials.put(replace(other, spec=replace(other.spec, suspended=True)))
    world.services.credentials.admit(account)


async def test_an_account_without_a_binding_is_not_narrowed(world: World) -> None:
    world.configure(external_account_binding="Disabled")
    account = await world.account()
    assert world.services.credentials.narrowing(account) is None
    world.services.credentials.admit(account)


async def test_rules_that_make_no_sense_allow_nothing(world: World) -> None:
    credential = world.put_credential(names=NameRules(dns_names=DNSNameRules(allowed=("",))))
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    with pytest.raises(Unavailable):
        world.services.credentials.narrowing(account)
