"""A profile that is not ready issues nothing, and lets clients read, give back and revoke what they have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.resources.policies import DNSNameRules, PolicySpec
from tests.support import pki
from tests.support.acme import ClientKey, b64
from tests.support.domain import NAMESPACE, World
from tests.support.server import Answer, Server, running_server


@dataclass
class Client:
    """An account with a certificate, an order that waits for its CSR, and one that waits for validation."""

    server: Server
    certificate: bytes
    issued: Answer
    ready: Answer
    pending: Answer


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running_server() as server:
        server.world.services.state.order_index.mark_complete()
        await server.register()
        issued = await server.finalize(await server.ready("www.example.com"), pki.csr("www.example.com"))
        leaf = await server.certificate(issued)
        ready = await server.ready("a.example.com")
        server.world.clock.ahead += timedelta(seconds=2)  # what is older than the process may be validated when read
        pending = await server.order("b.example.com")
        yield Client(server, leaf.public_bytes(Encoding.DER), issued, ready, pending)


def emptied(world: World) -> None:
    world.configure(policy=PolicySpec(), ready=False)


def unreadable_rules(world: World) -> None:
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("not a name",))))


def not_ready(world: World) -> None:
    world.configure(ready=False)


def without_policy(world: World) -> None:
    world.policies.remove(NAMESPACE, world.profile.resource.spec.policy_ref.name)


def with_unreadable_policy(world: World) -> None:
    world.policies.spoil(NAMESPACE, world.profile.resource.spec.policy_ref.name)


def without_authority(world: World) -> None:
    world.authorities.remove(NAMESPACE, world.profile.authority.metadata.name)


def open_without_consent(world: World) -> None:
    resource = world.profile.resource
    conditions = resource.status.conditions[:1]
    world.profiles.put(replace(resource, status=replace(resource.status, conditions=conditions)))


REASONS = [
    emptied,
    unreadable_rules,
    not_ready,
    without_policy,
    with_unreadable_policy,
    without_authority,
    open_without_consent,
]


@pytest.mark.requirement("M136", "SEC22", "C6")
@pytest.mark.parametrize("break_it", REASONS)
async def test_what_issues_nothing_works_and_the_rest_is_refused_for_a_time(
    client: Client, break_it: Callable[[World], None]
) -> None:
    server = client.server
    shown = (await server.post(client.pending.json["authorizations"][0])).json
    assert shown["status"] == "pending"
    challenge = shown["challenges"][0]["url"]
    break_it(server.world)
    assert (await server.get(f"{server.base}/directory")).status == 200
    orders = len(server.world.stored_orders())
    for refused in (
        await server.order("www.example.com"),
        await server.finalize(client.ready, pki.csr("a.example.com")),
        await server.post(challenge, {}),
        await server.post(f"{server.base}/new-authz", {"identifier": {"type": "dns", "value": "d.example.com"}}),
        await _register(server),
    ):
        assert refused.status == 503, refused.text
        assert refused.headers["Retry-After"]
    assert len(server.world.stored_orders()) == orders
    assert (await server.post(client.ready.location)).json["status"] == "ready"
    assert (await server.post(client.pending.json["authorizations"][0])).json["status"] == "pending"
    downloaded = await server.post((await server.post(client.issued.location)).json["certificate"])
    assert x509.load_pem_x509_certificate(downloaded.text.encode()).public_bytes(Encoding.DER) == client.certificate
    again = await server.post(f"{server.base}/new-account", {"onlyReturnExisting": True}, jwk=server.key.jwk)
    assert (again.status, again.location) == (200, server.kid)
    given_back = await server.post(client.pending.json["authorizations"][0], {"status": "deactivated"})
    assert given_back.json["status"] == "deactivated"
    revoked = await server.post(f"{server.base}/revoke-cert", {"certificate": b64(client.certificate)})
    assert revoked.status == 200, revoked.text
    assert (await server.post(server.kid or "", {"status": "deactivated"})).json["status"] == "deactivated"


async def _register(server: Server) -> Answer:
    """Ask for an account with a new key."""
    key = ClientKey()
    return await server.post(f"{server.base}/new-account", {"termsOfServiceAgreed": True}, jwk=key.jwk, key=key)


async def test_the_holder_of_its_key_revokes_a_certificate_of_a_dormant_profile(client: Client) -> None:
    server = client.server
    key = pki.key(which="leaf")
    order = await server.ready("c.example.com")
    leaf = await server.certificate(await server.finalize(order, pki.csr("c.example.com", signed_with=key)))
    emptied(server.world)
    signing = ClientKey("ES256", key)
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": 1}
    answer = await server.post(f"{server.base}/revoke-cert", payload, key=signing, jwk=signing.jwk)
    assert answer.status == 200, answer.text


async def test_an_order_that_is_being_issued_can_be_read_and_goes_on_when_the_profile_is_ready(client: Client) -> None:
    server = client.server
    server.world.remove_authority_key()
    server.world.clock.ahead = timedelta(minutes=30)  # ready for so long that the request is written down first
    await server.finalize(client.ready, pki.csr("a.example.com"))
    emptied(server.world)
    read = await server.post(client.ready.location)
    assert (read.status, read.json["status"]) == (200, "processing")
    server.world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",))), ready=True)
    server.world.install_authority()
    assert (await server.post(client.ready.location)).json["status"] == "valid"


async def test_a_profile_that_counts_for_nothing_still_answers_nothing(client: Client) -> None:
    server = client.server
    resource = server.world.profile.resource
    (ready, *more) = resource.status.conditions
    limited = (replace(ready, status="False", reason="ProfileLimitReached"), *more)
    status = replace(resource.status, conditions=limited, observed_generation=resource.metadata.generation)
    server.world.profiles.put(replace(resource, status=status))
    assert (await server.get(f"{server.base}/directory")).status == 503
