"""What the owner of a profile allows the clients of a namespace: nothing that a tenant writes makes it more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from acme_server.problems import ProblemType, Unavailable
from kms.resources.accounts import ACMEAccount
from kms.resources.credentials import CredentialSpec, NameRules
from kms.resources.kinds import CREDENTIALS, ORDERS
from kms.resources.meta import LocalRef
from kms.resources.orders import Authorized, OrderSpec, token_of
from kms.resources.policies import DNSNameRules, PolicySpec
from kms.resources.profiles import ClientNamespaces
from tests.support import pki
from tests.support.acme import binding
from tests.support.domain import KEY_ID_1, NAMESPACE, Key, World, running_world
from tests.support.refusals import refusal
from tests.support.server import running_server

TEMPLATES = {"dnsNames": {"allowed": ["*.{namespace}.example.com", "*.{labels.example.com/team}.example.com"]}}
ISSUANCE = ["create acmeorders", "update acmeorders", "update acmeorders"]


def rule(**members: Any) -> ClientNamespaces:
    return msgspec.convert({"from": "All", **members}, ClientNamespaces)


def allow(world: World, **members: Any) -> None:
    world.configure(external_account_binding="Required", allowed_namespaces=rule(**members))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(lambda world: allow(world, names=TEMPLATES)) as world:
        world.put_namespace("team", **{"example.com/team": "shop"})
        world.put_namespace(NAMESPACE)
        yield world


async def refused(world: World, account: ACMEAccount, name: str) -> str:
    problem = await refusal(world.order(account, name))
    assert problem.type == ProblemType.REJECTED_IDENTIFIER, problem.detail
    return problem.detail


@pytest.mark.requirement("SEC78")
async def test_a_tenants_own_credential_gets_no_name_of_another_namespace(world: World) -> None:
    account = await world.bound()
    detail = await refused(world, account, "www.other.example.com")
    assert detail == (
        'DNS name "www.other.example.com" is not allowed by profile pki/web'
        " (spec.enrollment.acme.allowedNamespaces.names.dnsNames.allowed)"
    )
    assert (await world.order(account, "www.team.example.com", "www.shop.example.com")).status.state == "pending"


@pytest.mark.requirement("SEC78")
@pytest.mark.parametrize(
    "spec",
    [
        {"names": {"dnsNames": {"allowed": ["**"], "wildcards": "Allow"}}},
        {"clientNamespace": "other"},
        {"shared": True},
        {"shared": True, "clientNamespace": "other", "names": {"dnsNames": {"allowed": ["**"]}}},
    ],
    ids=["names", "the namespace of others", "shared", "all of it"],
)
async def test_no_field_of_a_credential_widens_what_its_namespace_may_have(world: World, spec: dict[str, Any]) -> None:
    credential = world.put_credential()
    wider = msgspec.convert({"profileRef": {"name": "web", "namespace": "pki"}, **spec}, CredentialSpec)
    account = await world.account(binding=Binding(world.credentials.put(replace(credential, spec=wider)), KEY_ID_1))
    await refused(world, account, "www.other.example.com")
    await refused(world, account, "*.team.example.com")


@pytest.mark.requirement("SEC78")
async def test_the_names_of_a_credential_narrow_further(world: World) -> None:
    own = DNSNameRules(allowed=("www.team.example.com", "www.other.example.com"))
    account = await world.bound(names=NameRules(dns_names=own))
    await world.order(account, "www.team.example.com")
    await refused(world, account, "api.team.example.com")
    await refused(world, account, "www.other.example.com")


@pytest.mark.requirement("SEC78")
async def test_a_credential_beside_its_profile_names_the_namespace_of_its_clients(world: World) -> None:
    world.put_namespace("other", **{"example.com/team": "two"})
    credential = world.put_credential(namespace=NAMESPACE, client_namespace="other")
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    order = await world.order(account, "www.other.example.com", "www.two.example.com")
    assert world.stored(order).spec.client_namespace == "other"
    await refused(world, account, "www.pki.example.com")


@pytest.mark.requirement("SEC77", "SEC78")
async def test_labels_templates_and_profile_act_on_existing_accounts_at_once(world: World) -> None:
    account = await world.bound()
    await world.order(account, "www.shop.example.com")
    world.put_namespace("team", **{"example.com/team": "market"})
    await refused(world, account, "www.shop.example.com")
    await world.order(account, "www.market.example.com")
    world.put_namespace("team")
    await refused(world, account, "www.market.example.com")
    allow(world, names={"dnsNames": {"allowed": ["{namespace}.example.com"]}})
    await refused(world, account, "www.team.example.com")
    await world.order(account, "team.example.com")


@pytest.mark.requirement("SEC78")
async def test_a_name_that_the_namespace_lost_is_not_certified_in_a_ready_order(world: World) -> None:
    account = await world.bound()
    order = await world.proven(account, "www.shop.example.com")
    assert order.status.state == "ready"
    world.put_namespace("team", **{"example.com/team": "market"})
    problem = await refusal(world.finalized(account, order))
    assert problem.type == ProblemType.BAD_CSR
    assert "allowedNamespaces.names" in problem.detail


@pytest.mark.requirement("SEC77", "SEC78")
async def test_a_namespace_that_is_not_known_is_a_503_and_one_without_the_label_a_refusal(world: World) -> None:
    account = await world.bound()
    world.namespaces.remove("", "team")
    with pytest.raises(Unavailable):
        await world.order(account, "www.team.example.com")
    world.put_namespace("team", **{"example.com/team": "*"})
    await world.order(account, "www.team.example.com")
    await refused(world, account, "www.other.example.com")


@pytest.mark.requirement("SEC77", "SEC78")
@pytest.mark.parametrize("selector", [{"matchLabels": {"tenant": "yes"}}, {}], ids=["labels", "every namespace"])
async def test_an_account_of_a_namespace_that_is_not_allowed_any_more_may_not_order(
    world: World, selector: dict[str, Any]
) -> None:
    allow(world, **{"from": "Selector", "selector": selector})
    world.put_namespace("team", tenant="yes")
    account = await world.bound()
    ready = await world.proven(account, "www.team.example.com")
    world.namespaces.remove("", "team")
    for attempt in (world.order(account, "www.team.example.com"), world.finalized(account, ready)):
        with pytest.raises(Unavailable):
            await attempt
    world.put_namespace("team")
    if selector:
        for attempt in (world.order(account, "www.team.example.com"), world.finalized(account, ready)):
            assert (await refusal(attempt)).type == ProblemType.UNAUTHORIZED
    else:
        assert (await world.finalized(account, ready)).status.state == "valid"


@pytest.mark.requirement("SEC77", "SEC78")
async def test_a_namespace_that_is_not_allowed_opens_no_account_and_finds_its_credential_void(world: World) -> None:
    credential = world.put_credential()
    allow(world, **{"from": "Same"})
    assert (await refusal(world.account(binding=Binding(credential, KEY_ID_1)))).type == ProblemType.UNAUTHORIZED


@pytest.mark.requirement("SEC77", "SEC78")
async def test_a_suspension_by_the_profile_survives_the_credential(world: World) -> None:
    account = await world.bound()
    ready = await world.proven(account, "www.team.example.com")
    suspended = [{"namespace": "team", "suspended": True}]
    allow(world, settings=suspended)

    async def expect_refusals(key: Key) -> None:
        for attempt in (
            world.order(account, "www.team.example.com"),
            world.finalized(account, ready),
            world.account(key, Binding(world.put_credential(), KEY_ID_1)),
        ):
            problem = await refusal(attempt)
            assert (problem.type, "team" in problem.detail) == (ProblemType.UNAUTHORIZED, True)

    await expect_refusals(Key(thumbprint="another-1"))
    # All that a suspended account may not do: it is asked before key changes, revocations and the like.
    assert (await refusal(world.services.accounts.admit(world.caller(account)))).type == ProblemType.UNAUTHORIZED
    # Deleted and made anew, as after a restore: another UID, and nothing of what an administrator had added.
    world.credentials.remove("team", "cred")
    world.api.remove(CREDENTIALS, "team", "cred")
    await expect_refusals(Key(thumbprint="another-2"))
    allow(world, settings=[{"namespace": "another", "suspended": True}])
    await world.account(Key(thumbprint="another-3"), Binding(world.put_credential(), KEY_ID_1))


@pytest.mark.requirement("SEC78")
async def test_the_names_of_one_namespace_take_the_place_of_those_for_all(world: World) -> None:
    settings = [{"namespace": "team", "names": {"dnsNames": {"allowed": ["www.example.com"]}}}]
    allow(world, names=TEMPLATES, settings=settings)
    account = await world.bound()
    await world.order(account, "www.example.com")
    assert "settings[0]" in await refused(world, account, "www.team.example.com")


@pytest.mark.requirement("SEC78")
async def test_addresses_are_narrowed_as_names_are(world: World) -> None:
    networks = {"ipAddresses": {"allowed": ["10.{labels.site}.0.0/16", "192.0.2.1/32"]}}
    world.configure(
        policy=msgspec.convert({"ipAddresses": {"allowed": ["0.0.0.0/0"]}}, PolicySpec),
        external_account_binding="Required",
        allowed_namespaces=rule(names=networks),
    )
    account = await world.bound()
    world.put_namespace("team", site="7")
    await world.order(account, "10.7.2.3")
    await world.order(account, "192.0.2.1")
    await refused(world, account, "10.8.2.3")
    world.put_namespace("team", site="0.0")
    await refused(world, account, "10.7.2.3")
    await world.order(account, "192.0.2.1")


@pytest.mark.requirement("SEC78")
async def test_an_account_without_a_credential_gets_no_names_of_any_namespace(world: World) -> None:
    world.configure(external_account_binding="Optional")
    account = await world.account()
    names = {"dnsNames": {"allowed": ["*.{namespace}.example.com", "open.example.com"]}}
    allow(world, names=names)
    await world.order(account, "open.example.com")
    await refused(world, account, "www.team.example.com")


async def test_templates_that_make_no_sense_are_a_503(world: World) -> None:
    account = await world.bound()
    allow(world, names={"dnsNames": {"allowed": ["{namespace}-*.example.com"]}})
    with pytest.raises(Unavailable):
        await world.order(account, "team-1.example.com")


@pytest.mark.requirement("SEC83")
async def test_a_shared_credential_carries_no_proof_from_one_namespace_to_another(world: World) -> None:
    allow(world)
    account = await world.bound(shared=True)
    first = await world.proven(account, "b.example.com")
    assert first.status.state == "ready"
    again = await world.order(account, "b.example.com")
    assert (again.status.state, again.spec.authorized) == ("pending", ())
    assert token_of(again.spec, 0, "http-01") is not None


@pytest.mark.requirement("SEC83")
async def test_orders_that_were_ready_by_proofs_of_others_get_no_certificate(world: World) -> None:
    allow(world)
    credential = world.put_credential()
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    await world.proven(account, "b.example.com")
    order = await world.order(account, "b.example.com")
    assert order.status.state == "ready"
    world.credentials.put(replace(credential, spec=replace(credential.spec, shared=True)))
    assert (await refusal(world.finalized(account, order))).type == ProblemType.ORDER_NOT_READY


@pytest.mark.requirement("SEC83")
async def test_a_credential_that_was_given_to_another_namespace_leaves_its_proofs_behind(world: World) -> None:
    allow(world)
    credential = world.put_credential(namespace=NAMESPACE, client_namespace="one")
    account = await world.account(binding=Binding(credential, KEY_ID_1))
    first = await world.proven(account, "b.example.com")
    relying = await world.order(account, "b.example.com")
    assert relying.status.state == "ready"
    world.credentials.put(replace(credential, spec=replace(credential.spec, client_namespace="two")))
    assert (await world.order(account, "b.example.com")).status.state == "pending"
    assert (await refusal(world.finalized(account, relying))).type == ProblemType.ORDER_NOT_READY
    # An order that says to rely on the proof of others, written by hand, is lost on a replica that reads it as well.
    world.sole_writer = False
    world.services.state.authorizations.remove((NAMESPACE, first.metadata.name))
    forged = await world.order(account, "c.example.com")
    authorized = Authorized(
        authorization=0,
        order=first.metadata.name,
        position=0,
        type="http-01",
        validated=world.clock(),
        expires=forged.spec.expires,
    )
    spec = OrderSpec(
        account_ref=LocalRef(name=account.metadata.name),
        profile_ref=LocalRef(name="web"),
        identifiers=first.spec.identifiers,
        client_namespace="two",
        expires=forged.spec.expires,
        authorized=(authorized,),
    )
    stored = world.api.put(ORDERS, replace(forged, spec=spec))
    order = await world.services.orders.get(world.caller(account), stored.metadata.name, live=True)
    assert (await refusal(world.finalized(account, order))).type == ProblemType.ORDER_NOT_READY


@pytest.mark.requirement("SEC22", "SEC83")
@pytest.mark.parametrize("change", [{"client_namespace": "two"}, {"shared": True}])
async def test_an_account_revokes_nothing_with_the_proofs_of_its_former_clients(
    world: World, change: dict[str, Any]
) -> None:
    allow(world)
    world.services.state.order_index.mark_complete()
    owner = await world.account(Key(thumbprint="owner"), binding=Binding(world.put_credential(), KEY_ID_1))
    issued = await world.finalized(owner, await world.proven(owner, "b.example.com"), pki.csr("b.example.com"))
    der = x509.load_pem_x509_certificate((issued.status.certificate or "").encode()).public_bytes(Encoding.DER)
    credential = world.put_credential("kid-2", name="given", namespace=NAMESPACE, client_namespace="one")
    other = await world.account(binding=Binding(credential, "kid-2"))
    await world.proven(other, "b.example.com")
    world.credentials.put(replace(credential, spec=replace(credential.spec, **change)))
    for sole_writer in (True, False):
        world.sole_writer = sole_writer
        refused = await refusal(world.services.revocations.revoke(world.caller(other), der, None))
        assert refused.type == ProblemType.UNAUTHORIZED
    world.credentials.put(credential)
    await world.services.revocations.revoke(world.caller(other), der, None)
    assert world.stored(issued).status.revocation is not None


async def test_an_order_of_an_earlier_release_that_tells_no_namespace_is_finished(world: World) -> None:
    allow(world)
    account = await world.bound()
    original = await world.proven(account, "b.example.com")
    relying = await world.order(account, "b.example.com")
    for each in (world.stored(original), world.stored(relying)):
        world.api.remove(ORDERS, NAMESPACE, each.metadata.name)  # a changed spec would be damage
        world.api.put(ORDERS, replace(each, spec=replace(each.spec, client_namespace=None)))
    later = world.another()
    order = await later.services.orders.get(later.caller(account), relying.metadata.name)
    assert order.status.state == "ready"
    assert (await later.finalized(account, order)).status.state == "valid"


@pytest.mark.requirement("SEC83", "S59")
async def test_the_proofs_of_one_namespace_are_reused_and_an_order_costs_as_before(world: World) -> None:
    world.services.state.account_index.mark_complete()
    account = await world.bound()
    before = len(world.api.requests)
    first = await world.finalized(account, await world.proven(account, "www.team.example.com"))
    assert first.status.state == "valid"
    assert world.calls(before) == ISSUANCE
    assert (await world.order(account, "www.team.example.com")).status.state == "ready"


@pytest.mark.requirement("SEC78")
async def test_a_client_learns_over_http_which_field_of_the_profile_refuses_its_name() -> None:
    async with running_server(lambda world: allow(world, names=TEMPLATES)) as server:
        server.world.put_namespace("team")
        server.world.put_credential()
        members = binding(server.key, url=f"{server.base}/new-account", mac_key=bytes(range(32)), kid=KEY_ID_1)
        assert (await server.register(externalAccountBinding=members)).status == 201
        assert (await server.order("www.team.example.com")).status == 201
        refused = await server.order("www.other.example.com", "www.team.example.com")
        assert (refused.status, refused.problem["type"]) == (403, "rejectedIdentifier")
        assert "profile pki/web (spec.enrollment.acme.allowedNamespaces.names" in refused.problem["detail"]
        server.world.namespaces.remove("", "team")
        unknown = await server.order("www.team.example.com")
        assert (unknown.status, "Retry-After" in unknown.headers) == (503, True)


@pytest.mark.requirement("SEC77", "SEC78")
async def test_an_order_in_processing_ends_when_its_names_are_taken_from_the_namespace(world: World) -> None:
    account = await world.bound()
    ready = await world.proven(account, "www.team.example.com")
    world.remove_authority_key()
    world.clock.ahead = timedelta(hours=1)  # ready for so long that the request is written down first
    processing = await world.finalized(account, ready)
    assert processing.status.state == "processing"
    allow(world, names={"dnsNames": {"allowed": ["other.example.com"]}})
    world.install_authority()
    ended = await world.services.orders.refresh(processing)
    assert (ended.status.state, ended.status.certificate) == ("invalid", None)
