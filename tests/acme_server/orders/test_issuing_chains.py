"""What a server knows of the CAs that issue for external ones: after a restart, and not without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.orders.external_issuance import Pace
from acme_server.orders.issuance_waiting import Schedule
from acme_server.orders.issuing_chains import IssuingChains
from acme_server.problems import NotFound
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.kinds import ORDERS
from kms.resources.orders import ACMEOrder
from tests.support import pki
from tests.support.domain import World, running_world
from tests.support.scripted_issuer import FOREIGN_CA, ScriptedIssuer, certified

AT_ONCE = Schedule(after_failures=(timedelta(0), timedelta(0)), shortest=timedelta(0), longest=timedelta(0))


def configure(world: World) -> None:
    world.issuer = ScriptedIssuer([certified])
    world.schedule = AT_ONCE
    world.pace = Pace(inline=60, look=0.05, later=0.05)
    world.remove_authority_key()  # of an internal CA that had the name before
    world.install_external()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(configure) as world:
        world.services.state.account_index.mark_complete()
        yield world


def the_ca(world: World) -> CertificateAuthority:
    found = world.authorities.get("pki", "ca")
    assert found is not None
    return found


async def restarted(world: World, account: ACMEAccount, *, is_complete: bool = True) -> ACMEOrder:
    """An order that was issued before the server began; the server has read what there is."""
    order = await world.finalized(account, await world.proven(account))
    await world.services.issuance.drain(1)
    world.start()
    world.services.state.account_index.mark_complete()
    world.services.state.order_index.update(world.stored(order), False)
    if is_complete:
        world.services.state.order_index.mark_complete()
    return world.stored(order)


def reads(world: World) -> int:
    return sum((each.verb, each.plural) == ("get", ORDERS.plural) for each in world.api.requests)


@pytest.mark.requirement("X9", "X46")
async def test_after_a_restart_the_issuing_ca_is_known_from_what_it_has_issued(
    world: World, account: ACMEAccount
) -> None:
    await restarted(world, account)
    crls, before = world.services.crls, reads(world)
    with pytest.raises(NotFound):
        crls.ca_certificate("pki", "ca")
    await asyncio.gather(*(crls.recall("pki", "ca") for _ in range(20)))
    issuing = FOREIGN_CA.certificate.public_bytes(Encoding.DER)
    assert crls.ca_certificate("pki", "ca").der == issuing
    await crls.recall("pki", "ca")
    assert reads(world) - before == 1


@pytest.mark.requirement("X9", "X18")
async def test_after_a_restart_no_certificate_is_asked_for_that_outlives_the_issuing_ca(
    world: World, account: ACMEAccount
) -> None:
    contents = world.profile.resource.spec.certificate
    world.configure(contents=replace(contents, duration="8000h"))
    policy = world.policies.get("pki", "policy")
    assert policy is not None
    world.policies.put(replace(policy, spec=replace(policy.spec, maximum_duration="9000h")))
    await restarted(world, account)
    ca = world.issuer
    assert ca is not None
    ca.begun.clear()
    order = await world.finalized(account, await world.proven(account, "other.example.com"))
    assert (order.status.state, [each.attempt for each in ca.begun]) == ("valid", [1])


@pytest.mark.requirement("X9", "SEC29")
async def test_a_stored_chain_that_leads_elsewhere_is_none(world: World, account: ACMEAccount) -> None:
    """Others may write the status of an order."""
    order = await restarted(world, account)
    stranger = pki.root(common_name="Stranger", with_key=pki.key(which="stranger"))
    forged = stranger.certificate.public_bytes(Encoding.PEM).decode()
    world.api.put(ORDERS, replace(order, status=replace(order.status, certificate=forged * 2)))
    crls, before = world.services.crls, reads(world)
    for _ in range(3):
        await crls.recall("pki", "ca")
    assert reads(world) - before == 1
    with pytest.raises(NotFound):
        crls.ca_certificate("pki", "ca")


@pytest.mark.requirement("X9")
async def test_nothing_is_read_before_all_orders_are_known_and_again_after_a_failure(
    world: World, account: ACMEAccount
) -> None:
    await restarted(world, account, is_complete=False)
    crls, before = world.services.crls, reads(world)
    await crls.recall("pki", "ca")
    assert reads(world) == before
    world.services.state.order_index.mark_complete()
    world.api.fail_next("get", ORDERS.plural, 403)
    await crls.recall("pki", "ca")
    await crls.recall("pki", "ca")
    assert crls.ca_certificate("pki", "ca").der


@pytest.mark.requirement("X9")
async def test_the_chains_of_those_that_issued_last_are_kept(world: World) -> None:
    state = world.services.state
    chains = IssuingChains(
        orders=state.orders, stored=state.chains, certificates=state.certificates, clock=world.clock, maximum=3
    )
    authorities = [
        replace(the_ca(world), metadata=replace(the_ca(world).metadata, uid=f"uid-{number}")) for number in range(5)
    ]
    chain: tuple[x509.Certificate, ...] = (FOREIGN_CA.certificate,)
    for each in authorities[:3]:
        chains.put(each, chain)
    chains.put(authorities[0], chain)
    for each in authorities[3:]:
        chains.put(each, chain)
    assert (len(chains), [bool(chains.get(each)) for each in authorities]) == (3, [True, False, False, True, True])
