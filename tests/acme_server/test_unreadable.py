"""Objects that the API server stores and that the models do not admit: they grant nothing, and stop nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from cryptography import x509
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from acme_server.orders import transitions
from acme_server.problems import Refused, Unavailable
from acme_server.state.account_keys import AccountKeys
from acme_server.state.full_sync import FullSync
from acme_server.state.index import Index
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, CREDENTIALS, ORDERS
from kms.resources.meta import ObjectMeta, Unreadable
from tests.support import pki
from tests.support.accounts import account as account_object
from tests.support.acmeorders import certified
from tests.support.apiserver import spoil
from tests.support.domain import KEY_ID_1, NAMESPACE, PROFILE, Key, World, running_world
from tests.support.eventually import in_background
from tests.support.garbage_collection import garbage_collector

pytestmark = pytest.mark.requirement("SEC77", "SEC82")

KEY_ID_2 = "kid-of-another-credential"
BAD_TIME = "2027-01-01T00:00:00+99:99"
"""What the API server admitted as a date-time."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        yield world


def unread(name: str, *, version: int = 10**6) -> Unreadable:
    """An order that does not fit its model."""
    metadata = ObjectMeta(name=name, namespace=NAMESPACE, resource_version=str(version))
    return Unreadable(metadata, "spec.expires", "Invalid RFC3339 encoded datetime")


@pytest.mark.parametrize("kind", ["profiles", "policies", "authorities"])
async def test_a_profile_of_which_a_part_cannot_be_read_asks_to_come_again(world: World, kind: str) -> None:
    assert world.profile
    name = {"profiles": PROFILE, "policies": "policy", "authorities": "ca"}[kind]
    getattr(world, kind).spoil(NAMESPACE, name)
    with pytest.raises(Unavailable):
        _ = world.profile
    world.configure()
    world.install_authority()
    assert world.profile, "a version that can be read counts at once"


async def test_an_account_whose_credential_cannot_be_read_gets_nothing(world: World) -> None:
    world.configure(external_account_binding="Required")
    account = await world.bound()
    await world.proven(account, "www.example.com")
    world.credentials.spoil("team", "cred")
    with pytest.raises(Unavailable):
        await world.order(account, "www.example.com")


async def test_a_credential_that_cannot_be_read_opens_no_account(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(), KEY_ID_1)
    spoil(world.api, CREDENTIALS, "cred", "spec.expiresAt", BAD_TIME, namespace="team")
    with pytest.raises(Unavailable):
        await world.account(binding=binding)


async def test_a_profile_that_cannot_be_read_spares_nobody_the_check_of_caa(world: World) -> None:
    world.configure(caa="Enforce", caa_identities=("ca.example.net",))
    account = await world.account()
    order = await world.proven(account, "www.example.com")
    caller = world.caller(account)
    world.clock.ahead = timedelta(hours=9)  # the check at validation is too old
    world.profiles.spoil(NAMESPACE, PROFILE)
    with pytest.raises(Unavailable):
        await world.services.orders.finalize(caller, order, pki.csr("www.example.com"))


async def test_the_old_version_of_an_order_is_no_longer_used(world: World) -> None:
    account = await world.account()
    order = await world.proven(account, "www.example.com")
    assert (await world.order(account, "www.example.com")).spec.authorized
    orders = world.services.state.orders
    spoil(world.api, ORDERS, order.metadata.name, "spec.expires", BAD_TIME)
    orders.apply_unreadable(unread(order.metadata.name), False)
    with pytest.raises(Unavailable):
        await orders.get(NAMESPACE, order.metadata.name)
    again = await world.order(account, "www.example.com")
    assert again.spec.authorized == (), "its authorizations are no longer reused"
    world.api.remove(ORDERS, NAMESPACE, order.metadata.name)
    orders.apply_unreadable(unread(order.metadata.name, version=10**6 + 1), True)
    assert await orders.get(NAMESPACE, order.metadata.name) is None


async def test_what_was_revoked_stays_revoked_and_an_order_never_read_stops_the_lists_of_its_namespace(
    world: World,
) -> None:
    certificates, index = world.services.state.certificates, world.services.state.order_index
    order = transitions.revoked(certified(), "unspecified", now=world.clock())
    namespace = order.metadata.namespace
    index.update(order, False)
    index.mark_complete()
    index.obscure(replace(order.metadata, resource_version="999"))
    assert len(certificates.find_revoked(namespace, order.status.authority_key_id or "")) == 1
    assert certificates.is_complete(namespace)
    index.obscure(replace(order.metadata, name="never-read", resource_version="999"))
    assert not certificates.is_complete(namespace)
    assert certificates.is_complete("another")
    index.delete(replace(order.metadata, name="never-read", resource_version="1000"))
    assert certificates.is_complete(namespace)


async def test_the_list_of_a_ca_that_cannot_be_read_stays_while_it_is_valid(world: World) -> None:
    world.services.state.order_index.mark_complete()
    first = await world.services.crls.current(NAMESPACE, "ca")
    world.authorities.spoil(NAMESPACE, "ca")
    assert await world.services.crls.current(NAMESPACE, "ca") == first
    with pytest.raises(Unavailable):
        world.services.crls.ca_certificate(NAMESPACE, "ca")
    world.clock.ahead = timedelta(days=30)
    with pytest.raises(Unavailable):
        await world.services.crls.current(NAMESPACE, "ca")


async def test_an_order_that_cannot_be_read_takes_its_place(world: World) -> None:
    state = world.services.state
    account = await world.account()
    order = await world.order(account)
    before = len(state.order_quota), state.order_quota.count(NAMESPACE, PROFILE)
    state.orders.apply_unreadable(unread(order.metadata.name), False)
    state.orders.apply_unreadable(unread("never-read"), False)
    assert (len(state.order_quota), state.order_quota.count(NAMESPACE, PROFILE)) == (before[0] + 1, before[1])


async def test_an_account_that_cannot_be_read_takes_a_slot_of_its_credential(world: World) -> None:
    world.configure(external_account_binding="Required")
    binding = Binding(world.put_credential(maximum_accounts=1), KEY_ID_1)
    first = await world.account(binding=binding)
    spoil(world.api, ACCOUNTS, first.metadata.name, "status.contact", 7)
    with pytest.raises(Refused) as refused:
        await world.account(Key(thumbprint="y" * 43), binding=binding)
    assert "as many accounts as it may" in str(refused.value.detail)


@pytest.mark.requirement("SEC38", "SEC82")
async def test_an_account_that_cannot_be_read_takes_no_slot_of_a_credential_of_the_same_name(world: World) -> None:
    """A tenant with an unreadable account would otherwise stop the credentials of others that have the same name."""
    world.configure(external_account_binding="Required")
    theirs = Binding(world.put_credential(KEY_ID_2, namespace="other", maximum_accounts=1), KEY_ID_2)
    first = await world.account(binding=theirs)
    spoil(world.api, ACCOUNTS, first.metadata.name, "status.contact", 7)
    ours = Binding(world.put_credential(maximum_accounts=1), KEY_ID_1)
    opened = await world.account(Key(thumbprint="y" * 43), binding=ours)
    assert opened.status.state == "valid"
    for binding, thumbprint in ((ours, "x" * 43), (theirs, "z" * 43)):
        with pytest.raises(Refused, match="as many accounts"):
            await world.account(Key(thumbprint=thumbprint), binding=binding)


async def test_while_an_account_cannot_be_read_keys_are_looked_up() -> None:
    keys = AccountKeys(index := Index[ACMEAccount]())
    index.mark_complete()
    asked: list[str] = []

    async def read() -> None:
        asked.append("read")

    metadata = account_object("a").metadata
    index.obscure(replace(metadata, resource_version="7"))
    assert not await keys.is_account_key("x" * 43, read)
    index.update(replace(account_object("a"), metadata=replace(metadata, resource_version="8")), False)
    assert not await keys.is_account_key("x" * 43, read)
    assert asked == ["read"]


async def test_a_full_list_goes_on_past_an_order_that_cannot_be_read(world: World) -> None:
    account = await world.account()
    orders = [await world.order(account, f"{number}.example.com") for number in range(3)]
    spoil(world.api, ORDERS, orders[0].metadata.name, "spec.expires", BAD_TIME)
    index = world.services.state.order_index
    for expected in (3, 2):
        sync = FullSync(world.cluster, ORDERS, index)
        sync.request()
        async with in_background(sync.run(pause=0.01)):
            await sync.done.wait()
        assert (len(index), index.complete) == (expected, True)
        if expected == 3:
            world.api.remove(ORDERS, NAMESPACE, orders[0].metadata.name)


@pytest.mark.parametrize("labelled", [True, False])
async def test_garbage_collection_keeps_the_account_of_an_order_that_cannot_be_read(
    world: World, *, labelled: bool
) -> None:
    busy, idle = await world.account(), await world.account(Key(thumbprint="x" * 43))
    order, due = await world.order(busy, "a.example.com"), await world.order(idle, "b.example.com")
    spoil(world.api, ORDERS, order.metadata.name, "spec.expires", BAD_TIME)
    if not labelled:
        spoil(world.api, ORDERS, order.metadata.name, "metadata.labels", {})
    world.clock.ahead = timedelta(days=10)
    world.configure(account_retention="168h")
    assert await garbage_collector(world).collect() == {"acmeorders": 1, "acmeaccounts": 1 if labelled else 0}
    assert world.api.read(ACCOUNTS, NAMESPACE, busy.metadata.name) is not None
    assert world.api.read(ORDERS, NAMESPACE, due.metadata.name) is None


async def test_a_date_at_the_end_of_time_does_not_stop_garbage_collection(world: World) -> None:
    account = await world.account()
    first, second = [await world.order(account, f"{each}.example.com") for each in "ab"]
    spoil(world.api, ORDERS, first.metadata.name, "spec.expires", "9999-12-31T23:59:59Z")
    world.clock.ahead = timedelta(days=10)
    world.configure(account_retention="forever")
    assert await garbage_collector(world).collect() == {"acmeorders": 1}
    assert world.api.read(ORDERS, NAMESPACE, second.metadata.name) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [("revocation.time", "9999-12-31T23:59:59-23:00"), ("notAfter", "9999-12-31T23:59:59Z"), ("serialNumber", "zz")],
)
async def test_an_order_that_was_written_by_hand_does_not_stop_the_list_of_its_ca(
    world: World, path: str, value: str
) -> None:
    account = await world.account()
    for name in ("a.example.com", "b.example.com"):
        order = await world.finalized(account, await world.proven(account, name), pki.csr(name))
        revoked = transitions.revoked(order, "unspecified", now=world.clock())
        world.api.put(ORDERS, revoked)
    spoil(world.api, ORDERS, order.metadata.name, f"status.{path}", value)
    sync = FullSync(world.cluster, ORDERS, world.services.state.order_index)
    sync.request()
    async with in_background(sync.run(pause=0.01)):
        await sync.done.wait()
    listed = x509.load_der_x509_crl((await world.services.crls.current(NAMESPACE, "ca")).der)
    assert len(listed) == (1 if value == "zz" else 2)
