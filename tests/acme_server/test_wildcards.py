"""SEC81: a wildcard stands for all names directly below its base, wherever names are compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.accounts.eab_credentials import Binding
from kms.pki.ca import NameConstraints
from kms.resources.credentials import NameRules
from kms.resources.orders import ChallengeType
from kms.resources.policies import AttributeRules, DNSNameRules, PolicySpec, SubjectRules
from tests.support import pki
from tests.support.acme import ClientKey, b64
from tests.support.domain import KEY_ID_1, World
from tests.support.refusals import refusal
from tests.support.server import Server, running_server

pytestmark = pytest.mark.requirement("SEC81")

ALL: tuple[ChallengeType, ...] = ("http-01", "dns-01", "tls-alpn-01")
BASE, WILDCARD, SECRET = "example.com", "*.example.com", "secret.example.com"
WIDE = DNSNameRules(allowed=("**.example.com", "example.com"), wildcards="Allow")


def everything(world: World) -> None:
    world.configure(policy=PolicySpec(dns_names=WIDE), challenges=ALL)
    world.offered = ALL


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server(everything) as server:
        server.world.services.state.order_index.mark_complete()
        await server.register()
        yield server


async def refused(server: Server, *names: str) -> str:
    answer = await server.order(*names)
    assert (answer.status, answer.problem["type"]) == (403, "rejectedIdentifier"), answer.text
    detail: str = answer.problem["detail"]
    return detail


async def test_a_ca_that_excludes_a_name_certifies_no_wildcard_for_it(server: Server) -> None:
    server.world.install_authority(constraints=NameConstraints(excluded_domains=(SECRET,)))
    assert "it covers names in secret.example.com" in await refused(server, WILDCARD)
    assert (await server.order("*.shop.example.com")).status == 201


async def test_a_ca_that_permits_a_name_certifies_no_wildcard_around_it(server: Server) -> None:
    server.world.install_authority(constraints=NameConstraints(permitted_domains=("shop.example.com",)))
    assert "is not permitted" in await refused(server, WILDCARD)
    assert (await server.order("*.shop.example.com")).status == 201


async def test_the_constraints_are_asked_again_for_the_certificate_request(server: Server) -> None:
    order = await server.ready(WILDCARD)
    server.world.install_authority(constraints=NameConstraints(excluded_domains=(SECRET,)))
    answer = await server.finalize(order)
    assert (answer.status, answer.problem["type"]) == (400, "badCSR")
    assert "it covers names in secret.example.com" in answer.problem["detail"]


@pytest.mark.parametrize("denied", [SECRET, "sec*.example.com", "*.example.com", "**.example.com", "**"])
async def test_a_policy_that_denies_a_name_denies_wildcards_for_it(server: Server, denied: str) -> None:
    rules = replace_rules(WIDE, denied)
    server.world.configure(policy=PolicySpec(dns_names=rules), challenges=ALL)
    assert f'it matches "{denied}"' in await refused(server, WILDCARD)


def replace_rules(rules: DNSNameRules, denied: str) -> DNSNameRules:
    return DNSNameRules(allowed=rules.allowed, wildcards=rules.wildcards, denied=(denied,))


async def test_a_credential_that_denies_a_name_denies_wildcards_for_it(server: Server) -> None:
    world = server.world
    world.configure(policy=PolicySpec(dns_names=WIDE), challenges=ALL, external_account_binding="Required")
    credential = world.put_credential(names=NameRules(dns_names=replace_rules(WIDE, SECRET)))
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    problem = await refusal(world.order(account, WILDCARD))
    assert f'it matches "{SECRET}"' in problem.detail
    assert (await world.order(account, "*.shop.example.com")).status.state == "pending"


async def test_a_common_name_that_is_a_wildcard_is_denied_like_the_names_it_stands_for(server: Server) -> None:
    subject = SubjectRules(common_name=AttributeRules(allowed=("**",), denied=(SECRET,)))
    server.world.configure(policy=PolicySpec(dns_names=WIDE, subject=subject), challenges=ALL)
    order = await server.ready(WILDCARD)
    answer = await server.finalize(order, pki.csr(WILDCARD, common_name=WILDCARD))
    assert (answer.status, answer.problem["type"]) == (400, "badCSR")
    assert f'it matches "{SECRET}"' in answer.problem["detail"]
    assert (await server.finalize(order, pki.csr(WILDCARD))).status == 200


@pytest.mark.parametrize(("proven", "wanted"), [(BASE, WILDCARD), (SECRET, WILDCARD), (WILDCARD, SECRET)])
async def test_no_proof_of_a_part_counts_for_the_whole_nor_the_other_way_round(
    server: Server, proven: str, wanted: str
) -> None:
    await server.ready(proven)
    assert (await server.order(proven)).json["status"] == "ready"
    assert (await server.order(wanted)).json["status"] == "pending"


@pytest.mark.parametrize(("proven", "issued"), [(BASE, WILDCARD), (SECRET, WILDCARD), (WILDCARD, SECRET)])
async def test_who_has_proven_other_names_revokes_no_certificate_of_a_wildcard(
    server: Server, proven: str, issued: str
) -> None:
    certificate = await server.certificate(await server.finalize(await server.ready(issued)))
    payload = {"certificate": b64(certificate.public_bytes(Encoding.DER))}
    stranger = replace(server, key=ClientKey(), kid=None)
    await stranger.register()
    await stranger.ready(proven)
    answer = await stranger.post(f"{server.base}/revoke-cert", payload)
    assert (answer.status, answer.problem["type"]) == (403, "unauthorized")
    await stranger.ready(issued)
    assert (await stranger.post(f"{server.base}/revoke-cert", payload)).status == 200
