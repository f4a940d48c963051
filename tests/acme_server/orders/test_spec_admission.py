"""ACMEOrders made by hand: somebody who may create orders, and has an account, claims in them what is not so."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.problems import ProblemType, Refused
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ORDERS
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import ACMEOrder, Authorized, ChallengeType, Identifier, OrderSpec, Token
from kms.resources.policies import DNSNameRules, PolicySpec, ValueRules
from kms.resources.profiles import CertificateContents, OrderProfile
from tests.support import pki
from tests.support.domain import NAMESPACE, World, certificate_of, running_world

pytestmark = pytest.mark.requirement("SEC58")

HOUR = timedelta(hours=1)
WWW = "www.example.com"
SHORT = CertificateContents(duration="24h")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    def configure(world: World) -> None:
        world.offered = ("http-01", "dns-01")
        world.lend("short", contents=SHORT)
        world.lend("internal", contents=SHORT)

    async with running_world(configure) as world:
        yield world


@dataclass
class Forger:
    """Creates orders with kubectl, so to say, and asks for their certificates with an account of its own."""

    world: World
    account: ACMEAccount
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def create(self, *names: str, addresses: tuple[str, ...] = (), **spec: Any) -> ACMEOrder:
        identifiers = (
            *(Identifier(type="dns", value=each) for each in names or (() if addresses else (WWW,))),
            *(Identifier(type="ip", value=each) for each in addresses),
        )
        usual = {
            "account_ref": LocalRef(name=self.account.metadata.name),
            "profile_ref": LocalRef(name="web"),
            "identifiers": identifiers,
            "expires": self.world.clock() + 24 * HOUR,
            "challenges": ("http-01",),
            "token_key": "k" * 43,
        }
        name = chr(ord("a") + next(self.numbers)) * 32
        metadata = ObjectMeta(namespace=NAMESPACE, name=name)
        return self.world.api.put(ORDERS, ACMEOrder(metadata=metadata, spec=OrderSpec(**{**usual, **spec})))

    async def prove(self, order: ACMEOrder, type_: ChallengeType = "http-01") -> ACMEOrder:
        await self.world.respond(order, 0, type_)
        return await self.world.services.orders.poll(order)

    async def certify(self, order: ACMEOrder) -> ACMEOrder | Refused:
        """The finalized order, or the refusal; there is no certificate of an order that is refused."""
        order = await self.world.services.orders.get(self.world.caller(self.account), order.metadata.name)
        names = dict.fromkeys(each.value for each in order.spec.identifiers)
        try:
            return await self.world.finalized(self.account, order, pki.csr(*names))
        except Refused as refused:
            assert self.world.stored(order).status.certificate is None
            return refused


@pytest.fixture
def forger(world: World, account: ACMEAccount) -> Forger:
    return Forger(world, account)


def refused(result: ACMEOrder | Refused, type_: ProblemType, why: str) -> None:
    assert isinstance(result, Refused), f"certified: {result.spec}"
    assert (result.type, why in result.detail) == (type_, True), result


async def test_an_order_by_hand_that_claims_nothing_untrue_is_as_good_as_any(forger: Forger) -> None:
    result = await forger.certify(await forger.prove(forger.create()))
    assert isinstance(result, ACMEOrder)
    assert certificate_of(result)


@pytest.mark.parametrize("name", ["internal", "short", "web"])
async def test_a_profile_that_the_directory_does_not_lend_by_that_name_gives_nothing(
    world: World, forger: Forger, name: str
) -> None:
    world.configure(profiles=(OrderProfile(name="short", profile_ref=LocalRef(name="short")),))
    order = forger.create(profile=name, contents_ref=LocalRef(name="internal"))
    await forger.prove(order)
    refused(await forger.certify(order), ProblemType.INVALID_PROFILE, f'"{name}"')
    world.configure(profiles=(OrderProfile(name=name, profile_ref=LocalRef(name="internal")),))
    assert isinstance(await forger.certify(order), ACMEOrder)


async def test_a_name_for_which_the_credential_is_good_does_not_stand_for_another_profile(world: World) -> None:
    entries = tuple(OrderProfile(name=each, profile_ref=LocalRef(name=each)) for each in ("short", "internal"))
    world.configure(external_account_binding="Required", profiles=entries)
    forger = Forger(world, await world.bound(profiles=("short",)))
    order = forger.create(profile="short", contents_ref=LocalRef(name="internal"), client_namespace="team")
    await forger.prove(order)
    refused(await forger.certify(order), ProblemType.INVALID_PROFILE, '"short"')


@pytest.mark.requirement("SEC50")
async def test_a_wildcard_is_not_proven_by_a_host(world: World, forger: Forger) -> None:
    world.configure(
        challenges=("http-01", "dns-01"),
        policy=PolicySpec(dns_names=DNSNameRules(allowed=("example.com", "**.example.com"), wildcards="Allow")),
    )
    token = Token(authorization=0, type="http-01", token="t" * 32)
    order = forger.create("*.example.com", challenges=(), token_key=None, tokens=(token,))
    await forger.prove(order)
    refused(await forger.certify(order), ProblemType.ORDER_NOT_READY, "http-01")


@pytest.mark.requirement("SEC50")
async def test_a_challenge_that_the_profile_does_not_offer_proves_nothing(world: World, forger: Forger) -> None:
    world.configure(challenges=("dns-01",))
    await forger.prove(order := forger.create())
    refused(await forger.certify(order), ProblemType.ORDER_NOT_READY, "http-01")


@pytest.mark.parametrize("ahead", [-1000 * HOUR, -HOUR, 26 * HOUR, 1000 * HOUR])
async def test_a_validity_does_not_begin_when_neworder_would_not_let_it_begin(
    world: World, forger: Forger, ahead: timedelta
) -> None:
    await forger.prove(order := forger.create(not_before=world.clock() + ahead))
    refused(await forger.certify(order), ProblemType.MALFORMED, "notBefore")


async def test_a_name_is_certified_once(forger: Forger) -> None:
    order = forger.create(WWW, WWW)
    for position in (0, 1):
        await forger.world.respond(order, position)
    await forger.world.services.orders.poll(order)
    refused(await forger.certify(order), ProblemType.MALFORMED, "twice")


async def test_the_clients_are_those_of_the_credential(world: World) -> None:
    world.configure(external_account_binding="Required")
    forger = Forger(world, await world.bound())
    await forger.prove(order := forger.create(client_namespace="other"))
    refused(await forger.certify(order), ProblemType.ORDER_NOT_READY, "namespace")


@pytest.mark.requirement("SEC67")
async def test_an_order_lasts_as_long_as_the_profile_says(world: World, forger: Forger) -> None:
    await forger.prove(order := forger.create(expires=world.clock() + 100_000 * HOUR))
    world.clock.ahead = 25 * HOUR
    refused(await forger.certify(order), ProblemType.ORDER_NOT_READY, "orderLifetime")


@pytest.mark.requirement("SEC67")
@pytest.mark.parametrize("sole_writer", [True, False])
async def test_a_proof_lasts_as_long_as_the_profile_says(world: World, forger: Forger, sole_writer: bool) -> None:
    world.sole_writer = sole_writer
    first = await forger.prove(forger.create(expires=world.clock() + 100_000 * HOUR))
    world.clock.ahead = 30 * HOUR
    order = forger.create(authorized=(_reused(first),))
    refused(await forger.certify(order), ProblemType.ORDER_NOT_READY, WWW)
    assert world.stored(order).status.authorizations[0].state == "expired"


@pytest.mark.requirement("SEC50")
@pytest.mark.parametrize("sole_writer", [True, False])
async def test_a_proof_by_a_challenge_that_the_profile_does_not_offer_is_not_reused(
    world: World, forger: Forger, sole_writer: bool
) -> None:
    world.sole_writer = sole_writer
    first = await forger.prove(forger.create())
    world.configure(challenges=("dns-01",))
    order = forger.create(authorized=(_reused(first),))
    refused(await forger.certify(order), ProblemType.ORDER_NOT_READY, WWW)
    assert world.stored(order).status.authorizations[0].state == "revoked"


def _reused(order: ACMEOrder) -> Authorized:
    validated = order.status.authorizations[0].challenges[0].validated
    assert validated is not None
    return Authorized(
        authorization=0,
        order=order.metadata.name,
        position=0,
        type="http-01",
        validated=validated,
        expires=order.spec.expires,
    )


def _unproven(world: World, *, validated: timedelta = timedelta(0)) -> Authorized:
    return Authorized(
        authorization=0, validated=world.clock() + validated, expires=world.clock() + 24 * HOUR, type="http-01"
    )


async def trusted(world: World, policy: PolicySpec) -> Forger:
    world.configure(external_account_binding="Required", ownership_validation="Skipped", policy=policy)
    return Forger(world, await world.bound())


async def test_without_validation_an_address_that_this_server_does_not_certify_is_not_certified(world: World) -> None:
    forger = await trusted(world, PolicySpec(ip_addresses=ValueRules(allowed=("127.0.0.0/8",))))
    order = forger.create(addresses=("127.0.0.1",), authorized=(_unproven(world),), client_namespace="team")
    refused(await forger.certify(order), ProblemType.REJECTED_IDENTIFIER, "loopback")


@pytest.mark.parametrize("ahead", [-100 * HOUR, 100 * HOUR])
async def test_without_validation_the_dates_count_from_the_creation_of_the_order(
    world: World, ahead: timedelta
) -> None:
    forger = await trusted(world, PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",))))
    order = forger.create(authorized=(_unproven(world, validated=ahead),), client_namespace="team")
    result = await forger.certify(order)
    assert isinstance(result, ACMEOrder)
    assert abs(certificate_of(result).not_valid_before_utc - world.clock()) < timedelta(minutes=5)


async def test_a_claim_is_checked_before_an_order_in_processing_is_continued(
    world: World, forger: Forger, processing: Callable[[ACMEOrder], Any]
) -> None:
    order = await processing(await forger.prove(forger.create(profile="internal", contents_ref=LocalRef(name="short"))))
    ended = await world.services.orders.refresh(order)
    assert (ended.status.state, ended.status.error and ended.status.error.type) == ("invalid", "invalidProfile")
    dated = await processing(await forger.prove(forger.create(not_before=world.clock() - 9 * HOUR)))
    ended = await world.services.orders.refresh(dated)
    assert (ended.status.state, ended.status.error and ended.status.error.type) == ("invalid", "malformed")


async def test_an_order_in_processing_is_not_bound_to_its_lifetime(
    world: World, forger: Forger, processing: Callable[[ACMEOrder], Any]
) -> None:
    order = await processing(await forger.prove(forger.create()))
    world.clock.ahead = 23 * HOUR
    assert (await world.services.orders.refresh(order)).status.state == "valid"


@pytest.fixture
def processing(world: World) -> Callable[[ACMEOrder], Any]:
    """As a server leaves an order that dies after it accepted the request."""

    async def leave(order: ACMEOrder) -> ACMEOrder:
        csr = pki.csr(WWW)
        digest = hashlib.sha256(csr).hexdigest()
        status = replace(order.status, state="processing", request=csr, csr_digest=digest, accepted=world.clock())
        return world.api.put(ORDERS, replace(order, status=status))

    return leave
