"""Chains that are stored once: what orders cost with them, and what becomes of those that are gone, changed or many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.orders.external_issuance import Pace
from acme_server.problems import NotFound, Unavailable
from acme_server.state.certificate_chains import CertificateChains, ChainMissing
from acme_server.state.chain_rules import AFTER_EXPIRY, ChainLimits
from kms.cluster.retry import Timing
from kms.pki.certificate import certificate_pem
from kms.resources.accounts import ACMEAccount
from kms.resources.certificate_chains import CertificateChain, CertificateChainSpec, chain_name, split_chain
from kms.resources.kinds import CERTIFICATE_CHAINS, ORDERS
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import ACMEOrder
from tests.support import pki
from tests.support.domain import NAMESPACE, World, certificate_of, running_world
from tests.support.eventually import hurried, in_background, until
from tests.support.garbage_collection import garbage_collector
from tests.support.restored_etcd import Snapshot
from tests.support.scripted_issuer import FOREIGN_CA, ScriptedIssuer, certified
from tests.support.server import Server, running_replica, running_server

DAY = timedelta(days=1)
PLURAL = CERTIFICATE_CHAINS.plural


@asynccontextmanager
async def watching(chains: CertificateChains) -> AsyncIterator[CertificateChains]:
    """The chains as a server knows them that runs."""
    async with in_background(chains.run()):
        await until(chains.synced.is_set)
        yield chains


@pytest.fixture
async def chains(world: World) -> AsyncIterator[CertificateChains]:
    world.services.state.account_index.mark_complete()
    async with watching(world.services.state.chains) as running:
        yield running


def other_chains(world: World, *, all_read: bool = True, **options: Any) -> CertificateChains:
    return CertificateChains(
        world.cluster,
        all_read_references=lambda: all_read,
        authorities=world.authorities.values,
        clock=world.clock,
        timing=Timing(sleep=hurried),
        **options,
    )


async def issued(world: World, account: ACMEAccount, name: str = "www.example.com") -> ACMEOrder:
    return await world.finalized(account, await world.proven(account, name))


def stored_chains(world: World) -> list[str]:
    return [key.name for key in world.api.store.by_key if key.plural == PLURAL]


def whole(world: World, order: ACMEOrder) -> str:
    """What a client must get."""
    (authority,) = world.authorities.values()
    return certificate_pem(certificate_of(order)) + (authority.status.certificate or "")


def referring(order: ACMEOrder) -> str:
    """The name of the chain to which the stored order refers."""
    assert order.status.chain_ref is not None
    assert split_chain(order.status.certificate or "")[1] == ""
    return order.status.chain_ref.name


def put_chain(world: World, certificates: str, *, name: str = "", namespace: str = NAMESPACE) -> CertificateChain:
    metadata = ObjectMeta(namespace=namespace, name=name or chain_name(certificates))
    chain = CertificateChain(metadata=metadata, spec=CertificateChainSpec(certificates=certificates))
    return world.api.put(CERTIFICATE_CHAINS, chain)


async def test_the_chain_is_created_once_and_orders_cost_what_they_did(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    costs, orders = [], []
    for number in range(3):
        before = len(world.api.requests)
        orders.append(await issued(world, account, f"host-{number}.example.com"))
        costs.append([each for each in world.calls(before) if not each.startswith("watch")])
    three = ["create acmeorders", "update acmeorders", "update acmeorders"]
    assert costs == [[*three[:2], f"create {PLURAL}", three[2]], three, three]
    (name,) = stored_chains(world)
    assert {referring(world.stored(order)) for order in orders} == {name}
    before = len(world.api.requests)
    assert [await chains.complete(order) for order in orders] == [whole(world, order) for order in orders]
    assert world.calls(before) == [], "what the watch has brought is not read"


async def test_an_order_that_refers_to_its_chain_is_shorter_by_all_but_the_reference(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = world.stored(await issued(world, account))
    chain = await chains.complete(order)
    assert chain is not None
    assert len(order.status.certificate or "") + len(referring(order)) < 0.7 * len(chain)


async def test_an_order_without_a_certificate_has_no_chain(world: World, account: ACMEAccount) -> None:
    assert await world.services.state.chains.complete(await world.order(account)) is None


async def test_before_chains_are_listed_orders_have_them_whole(world: World, account: ACMEAccount) -> None:
    order = world.stored(await issued(world, account))
    assert (order.status.certificate, order.status.chain_ref) == (whole(world, order), None)
    assert stored_chains(world) == []
    async with watching(world.services.state.chains) as chains:
        assert await chains.complete(order) == whole(world, order)
        later = world.stored(await issued(world, account, "later.example.com"))
        assert referring(later) == stored_chains(world)[0]


async def test_orders_refer_to_nothing_that_another_replica_cannot_read(world: World, account: ACMEAccount) -> None:
    order = await issued(world, account)
    chain = order.status.certificate or ""
    ends = certificate_of(order).not_valid_after_utc
    async with watching(other_chains(world, all_read=False)) as chains:
        assert await chains.reference(NAMESPACE, chain, ends) is None
    assert stored_chains(world) == []
    async with watching(other_chains(world)) as chains:
        assert await chains.reference(NAMESPACE, chain, ends) == LocalRef(name=chain_name(split_chain(chain)[1]))


@pytest.mark.parametrize("why", ["unserved", "forbidden", "unwatched"])
async def test_orders_are_issued_whatever_the_api_server_makes_of_chains(
    world: World, account: ACMEAccount, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    world.services.state.account_index.mark_complete()
    if why == "unserved":
        world.api.unserved.add(PLURAL)
    world.api.fail_next({"unwatched": "list"}.get(why, "create"), PLURAL, 403, times=1_000)
    chains = world.services.state.chains
    async with in_background(chains.run()):
        await until(lambda: chains.synced.is_set() or any("list" in each for each in world.calls()))
        for name in ("one.example.com", "two.example.com"):
            order = world.stored(await issued(world, account, name))
            assert (order.status.certificate, order.status.chain_ref) == (whole(world, order), None)
    refused = [each for each in world.calls() if each == f"create {PLURAL}"]
    assert len(refused) == (1 if why == "forbidden" else 0), "it is not tried with each order"
    said = [each.message for each in caplog.records if "chain" in each.message or "watch" in each.message]
    assert len(said) == 1


async def test_an_api_server_whose_orders_have_no_references_is_not_asked_again_at_once(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    ready = await world.proven(account)
    # What it says to a strict write with a field that its schema does not know.
    world.api.fail_next("update", ORDERS.plural, 400, message='strict decoding error: unknown field "status.chainRef"')
    before = len(world.api.requests)
    order = world.stored(await world.finalized(account, ready))
    assert world.calls(before) == [f"create {PLURAL}", "update acmeorders", "update acmeorders"]
    assert (order.status.certificate, order.status.chain_ref) == (whole(world, order), None)
    before = len(world.api.requests)
    await world.finalized(account, await world.proven(account, "next.example.com"))
    assert world.calls(before) == ["create acmeorders", "update acmeorders", "update acmeorders"]
    world.clock.ahead = timedelta(minutes=11)
    referring(world.stored(await issued(world, account, "later.example.com")))


async def test_a_chain_that_ends_before_the_certificate_stays_in_the_order(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = await issued(world, account)
    chain, ends = whole(world, order), world.clock() + 400 * DAY
    assert await chains.reference(NAMESPACE, chain, ends) is None
    world.clock.ahead = 366 * DAY
    assert await chains.reference(NAMESPACE, chain, world.clock() - DAY) is None


async def test_a_namespace_has_so_many_chains_and_no_more(
    world: World, account: ACMEAccount, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = certificate_pem(certificate_of(await issued(world, account)))
    ends = world.clock() + DAY
    made = [certificate_pem(pki.root(serial=number, not_after=ends + DAY).certificate) for number in range(1, 6)]
    async with watching(other_chains(world, limits=ChainLimits(chains=3))) as chains:
        found = [await chains.reference(NAMESPACE, leaf + each, ends) for each in made]
        assert [each is not None for each in found] == [True, True, True, False, False]
        assert len([each for each in caplog.records if each.message.startswith("too many chains")]) == 1
        assert await chains.reference("other", leaf + made[4], ends) is not None
        assert await chains.reference(NAMESPACE, leaf + made[0], ends) == found[0]
    assert len(stored_chains(world)) == 4
    async with watching(other_chains(world, limits=ChainLimits(octets=len(made[0]) * 10))) as chains:
        found = [await chains.reference(NAMESPACE, leaf + each, ends) for each in made[3:]]
        assert [each is not None for each in found] == [True, False]
        assert await chains.reference("third", leaf + made[4], ends) is not None, "half is left for others"


async def test_replicas_that_create_a_chain_at_once_refer_to_the_same(world: World, account: ACMEAccount) -> None:
    order = await issued(world, account)
    chain, ends = whole(world, order), certificate_of(order).not_valid_after_utc
    async with watching(other_chains(world)) as one:
        put_chain(world, split_chain(chain)[1])  # the watch of `one` may not have brought it yet
        assert await one.reference(NAMESPACE, chain, ends) == LocalRef(name=chain_name(split_chain(chain)[1]))
    assert len(stored_chains(world)) == 1


async def test_a_chain_that_was_deleted_is_served_and_created_again(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = world.stored(await issued(world, account))
    world.api.remove(CERTIFICATE_CHAINS, NAMESPACE, referring(order))
    await until(lambda: not chains.values())
    assert await chains.complete(order) == whole(world, order)
    assert stored_chains(world) == [referring(order)]


async def test_a_chain_that_was_edited_in_place_is_served_as_it_was(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = world.stored(await issued(world, account))
    expected = whole(world, order)
    foreign = certificate_pem(pki.root(common_name="Foreign", with_key=pki.key(which="foreign")).certificate)
    put_chain(world, foreign, name=referring(order))
    await until(lambda: not any(each.is_genuine for each in chains.values()))
    world.install_authority("another-uid", serial=7)
    assert await chains.complete(order) == expected


async def test_a_chain_that_was_deleted_while_no_server_ran_is_that_of_the_ca(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = world.stored(await issued(world, account))
    world.api.remove(CERTIFICATE_CHAINS, NAMESPACE, referring(order))
    async with watching(other_chains(world)) as restarted:
        assert await restarted.complete(order) == whole(world, order)
    assert stored_chains(world) == [referring(order)]


async def test_a_chain_that_nobody_has_any_more_is_not_replaced_by_another(
    world: World, account: ACMEAccount, chains: CertificateChains, caplog: pytest.LogCaptureFixture
) -> None:
    order = world.stored(await issued(world, account))
    world.api.remove(CERTIFICATE_CHAINS, NAMESPACE, referring(order))
    world.install_authority("another-uid", serial=7)
    async with watching(other_chains(world)) as restarted:
        with pytest.raises(Unavailable):
            await restarted.complete(order)
        assert any(each.message == "chain of a certificate is missing or was changed" for each in caplog.records)
        put_chain(world, whole(world, order))  # not what the name says
        with pytest.raises(Unavailable):
            await restarted.complete(order)


@pytest.mark.parametrize("known", [True, False])
async def test_a_chain_that_was_changed_is_never_served(
    world: World, account: ACMEAccount, chains: CertificateChains, *, known: bool
) -> None:
    order = world.stored(await issued(world, account))
    foreign = certificate_pem(pki.root(common_name="Foreign", with_key=pki.key(which="foreign")).certificate)
    world.api.remove(CERTIFICATE_CHAINS, NAMESPACE, referring(order))
    put_chain(world, foreign, name=referring(order))
    if not known:
        world.install_authority("another-uid", serial=7)
    expected = certificate_pem(certificate_of(order))
    async with watching(other_chains(world)) as restarted:
        if not known:
            with pytest.raises(Unavailable):
                await restarted.complete(order)
            return
        assert await restarted.complete(order) == whole(world, order) != expected + foreign
        later = await restarted.reference(NAMESPACE, whole(world, order), certificate_of(order).not_valid_after_utc)
        assert later == order.status.chain_ref
    restored = world.api.read(CERTIFICATE_CHAINS, NAMESPACE, referring(order))
    assert restored is not None
    assert restored.is_genuine


async def test_a_certificate_that_has_lost_its_reference_gets_a_chain_that_leads_to_it(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = world.stored(await issued(world, account))
    lost = replace(order, status=replace(order.status, chain_ref=None))
    assert await chains.complete(lost) == whole(world, order)
    world.install_authority("another-uid", with_key=pki.key(which="another"))
    world.api.remove(CERTIFICATE_CHAINS, NAMESPACE, referring(order))
    await until(lambda: not chains.values())
    with pytest.raises(Unavailable):
        await chains.complete(lost)


async def test_a_certificate_that_has_lost_its_reference_gets_no_expired_chain_of_a_ca_renewed_with_its_key(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    now = world.clock()
    put_chain(
        world,
        certificate_pem(pki.root(serial=9, not_before=now - 9 * DAY, not_after=now - timedelta(hours=1)).certificate),
    )
    await until(lambda: len(chains) == 1)
    order = world.stored(await issued(world, account))
    lost = replace(order, status=replace(order.status, chain_ref=None))
    assert await chains.complete(lost) == whole(world, order)


async def test_a_chain_that_a_restore_of_etcd_took_away_with_many_others_is_served_and_created_again(
    world: World, account: ACMEAccount
) -> None:
    snapshot = Snapshot(world.api)
    async with watching(world.services.state.chains) as chains:
        order = world.stored(await issued(world, account))
        expected = whole(world, order)
        for number in range(70):
            put_chain(world, f"chain {number}", namespace=f"tenant-{number}")
        await until(lambda: len(chains) == 71)
        snapshot.restore(world.api, bump=1_000)
        await until(lambda: len(chains) == 0)
        world.install_authority("another-uid", serial=7)
        assert await chains.complete(order) == expected
    assert stored_chains(world) == [referring(order)]


@pytest.mark.parametrize("name", ["", "..", "../acmeorders", "a?watch=true", "A" * 64, "0" * 63, "\u0000", "\u00e9"])
async def test_what_is_no_name_of_a_chain_is_not_asked_for(
    world: World, account: ACMEAccount, chains: CertificateChains, name: str
) -> None:
    order = world.stored(await issued(world, account))
    before = len(world.api.requests)
    with pytest.raises(ChainMissing):
        await chains.complete(replace(order, status=replace(order.status, chain_ref=LocalRef(name=name))))
    assert world.calls(before) == []


async def test_while_the_api_server_does_not_answer_clients_try_again(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = world.stored(await issued(world, account))
    world.install_authority("another-uid", serial=7)
    unlisted = other_chains(world)
    world.api.fail_next("get", PLURAL, 403)
    with pytest.raises(Unavailable):
        await unlisted.complete(order)
    assert (await unlisted.complete(order) or "").count("BEGIN") == 2


async def test_chains_are_deleted_when_their_issuer_has_expired_and_no_order_needs_them(
    world: World, account: ACMEAccount, chains: CertificateChains
) -> None:
    order = world.stored(await issued(world, account))
    old = certificate_pem(pki.root(serial=9, not_after=world.clock() + DAY).certificate)
    needed = put_chain(world, certificate_pem(pki.root(serial=10, not_after=world.clock() + DAY).certificate))
    put_chain(world, old)
    status = replace(order.status, chain_ref=LocalRef(name=needed.metadata.name))
    world.api.put(ORDERS, replace(order, metadata=ObjectMeta(namespace=NAMESPACE, name="keeps"), status=status))
    await until(lambda: len(chains) == 3)
    world.clock.ahead = DAY + AFTER_EXPIRY - timedelta(hours=1)
    assert PLURAL not in await garbage_collector(world).collect()
    world.clock.ahead = DAY + AFTER_EXPIRY + timedelta(hours=1)
    assert (await garbage_collector(world).collect())[PLURAL] == 1
    assert set(stored_chains(world)) == {referring(order), needed.metadata.name}
    world.api.store.by_key[next(key for key in world.api.store.by_key if key.name == "keeps")]["spec"]["expires"] = "x"
    world.clock.ahead = 400 * DAY
    await until(lambda: len(chains) == 2)
    assert PLURAL not in await garbage_collector(world).collect(), "an order that cannot be read may need any"


@pytest.mark.parametrize("is_there", [True, False])
async def test_what_an_external_ca_returned_is_stored_once_and_tells_who_issues(*, is_there: bool) -> None:
    def configure(world: World) -> None:
        world.issuer = ScriptedIssuer([certified])
        world.pace = Pace(inline=60, look=0.05, later=0.05)
        world.remove_authority_key()
        world.install_external()

    async with running_world(configure) as world:
        world.services.state.account_index.mark_complete()
        account = await world.account()
        async with watching(world.services.state.chains) as chains:
            order = world.stored(await issued(world, account))
            assert (await chains.complete(order) or "").endswith(certificate_pem(FOREIGN_CA.certificate))
            later = world.stored(await issued(world, account, "later.example.com"))
            assert stored_chains(world) == [referring(order)] == [referring(later)]
        if not is_there:
            world.api.remove(CERTIFICATE_CHAINS, NAMESPACE, referring(order))
        await world.services.issuance.drain(1)
        world.start()
        world.services.state.account_index.mark_complete()
        world.services.state.order_index.update(later, False)
        world.services.state.order_index.mark_complete()
        async with watching(world.services.state.chains):
            before = len(world.api.requests)
            for _ in range(3):
                await world.services.crls.recall("pki", "ca")
            assert world.calls(before).count("get acmeorders") == 1
            if is_there:
                issuing = FOREIGN_CA.certificate.public_bytes(Encoding.DER)
                assert world.services.crls.ca_certificate("pki", "ca").der == issuing
            else:
                with pytest.raises(NotFound):
                    world.services.crls.ca_certificate("pki", "ca")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running, watching(running.world.services.state.chains):
        await running.register()
        yield running


async def test_clients_get_the_whole_chain_or_are_told_to_come_again(server: Server) -> None:
    world = server.world
    order = await server.finalize(await server.ready("www.example.com"))
    answer = await server.post(order.json["certificate"])
    assert (answer.status, answer.text.count("BEGIN CERTIFICATE")) == (200, 2)
    (key,) = world.stored_orders()
    stored = world.api.read(ORDERS, *key)
    assert stored is not None
    lost = replace(stored.status, chain_ref=LocalRef(name="0" * 64))
    world.api.put(ORDERS, replace(stored, status=lost))
    async with running_replica(world.another(), server.nonces) as other:
        answer = await server.post(order.json["certificate"], at=other)
    assert (answer.status, answer.problem["type"]) == (503, "serverInternal")
    assert int(answer.headers["Retry-After"]) > 0
    assert "BEGIN" not in answer.text
