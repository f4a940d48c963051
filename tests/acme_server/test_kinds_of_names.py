"""Orders for addresses (RFC 8738) and for wildcards, and with dates, from the request to the certificate."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.net.address_filter import AddressFilter
from kms.resources.orders import ChallengeType
from kms.resources.policies import DNSNameRules, PolicySpec, ValueRules
from kms.resources.profiles import CertificateContents
from tests.support import pki
from tests.support.domain import World, certificate_of, running_world, wanted
from tests.support.refusals import refusal
from tests.support.server import Server, running_server

ADDRESSES = ("10.0.0.7", "2001:db8::7")
POLICY = PolicySpec(
    dns_names=DNSNameRules(allowed=("**.example.com", "example.com"), wildcards="Allow"),
    ip_addresses=ValueRules(allowed=("10.0.0.0/8", "127.0.0.0/8", "2001:db8::/32")),
)
ALL: tuple[ChallengeType, ...] = ("http-01", "dns-01", "tls-alpn-01")


def everything(world: World) -> None:
    world.configure(policy=POLICY, challenges=ALL)
    world.offered = ALL


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server(everything) as server:
        await server.register()
        yield server


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(everything) as world:
        yield world


# Addresses


@pytest.mark.requirement("IP-M1", "IP-M5")
async def test_an_address_is_offered_everything_but_dns_01(server: Server) -> None:
    identifiers = [{"type": "ip", "value": each} for each in ADDRESSES]
    order = await server.post(f"{server.base}/new-order", {"identifiers": identifiers})
    assert order.json["identifiers"] == identifiers
    for url, identifier in zip(order.json["authorizations"], identifiers, strict=True):
        authorization = (await server.post(url)).json
        assert authorization["identifier"] == identifier
        assert {each["type"] for each in authorization["challenges"]} == {"http-01", "tls-alpn-01"}
        assert "wildcard" not in authorization


@pytest.mark.requirement("IP-M6", "SEC28", "M112")
@pytest.mark.parametrize("type_", ["http-01", "tls-alpn-01"])
async def test_a_certificate_for_addresses_has_them_in_the_san_alone(world: World, type_: ChallengeType) -> None:
    world.configure(policy=POLICY, challenges=ALL, contents=CertificateContents(common_name="FirstName"))
    account = await world.account()
    order = await world.proven(account, *ADDRESSES, type_=type_)
    issued = certificate_of(await world.finalized(account, order))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(each) for each in ADDRESSES]
    assert names.value.get_values_for_type(x509.DNSName) == []
    assert names.critical
    assert issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []
    mixed = await world.proven(account, "10.0.0.9", "www.example.com", type_=type_)
    issued = certificate_of(await world.finalized(account, mixed))
    assert [each.value for each in issued.subject] == ["www.example.com"]


@pytest.mark.requirement("IP-M6", "SEC28")
@pytest.mark.parametrize(
    "names", [("10.0.0.8",), ("2001:db8::7",), ("10.0.0.7", "www.example.com"), ("a.example.com",)]
)
async def test_a_request_for_another_address_is_refused(world: World, names: tuple[str, ...]) -> None:
    account = await world.account()
    order = await world.proven(account, "10.0.0.7")
    problem = await refusal(world.finalized(account, order, pki.csr(*names)))
    assert problem.type == ProblemType.BAD_CSR
    assert world.stored(order).status.state == "ready"


@pytest.mark.requirement("IP-M8")
async def test_loopback_is_an_identifier_only_where_validation_may_go_there(world: World) -> None:
    account = await world.account()
    problem = await refusal(world.order(account, "127.0.0.9"))
    assert problem.type == ProblemType.REJECTED_IDENTIFIER
    assert "loopback" in problem.detail
    allow = ipaddress.IPv4Network("127.0.0.0/8")
    world.objection = AddressFilter(ValidationSettings(allow=(allow,))).objection
    world.start()
    order = await world.proven(account, "127.0.0.9")
    assert (await world.finalized(account, order)).status.state == "valid"
    assert world.validator.asked[0][0] == "127.0.0.9"


@pytest.mark.requirement("IP-M5", "M107")
async def test_an_address_that_only_dns_01_is_offered_for_is_refused(world: World) -> None:
    world.configure(policy=POLICY, challenges=("dns-01",))
    problem = await refusal(world.order(await world.account(), "10.0.0.7"))
    assert problem.type == ProblemType.REJECTED_IDENTIFIER
    assert "(dns-01)" in problem.detail


# Wildcards


@pytest.mark.requirement("M57", "M61", "M64", "M150")
async def test_a_wildcard_is_proven_by_dns_01_for_its_base_name(server: Server) -> None:
    order = await server.order("*.apps.example.com", "apps.example.com")
    assert [each["value"] for each in order.json["identifiers"]] == ["*.apps.example.com", "apps.example.com"]
    wildcard, base = [(await server.post(each)).json for each in order.json["authorizations"]]
    assert (wildcard["identifier"]["value"], wildcard["wildcard"]) == ("apps.example.com", True)
    assert [each["type"] for each in wildcard["challenges"]] == ["dns-01"]
    assert base["identifier"]["value"] == "apps.example.com"
    assert "wildcard" not in base
    assert [each["type"] for each in base["challenges"]] == list(ALL)


@pytest.mark.requirement("M57", "SEC28")
async def test_a_proof_of_the_base_name_is_none_of_the_wildcard_and_the_other_way_round(world: World) -> None:
    account = await world.account()
    await world.proven(account, "example.com", type_="dns-01")
    assert (await world.order(account, "*.example.com")).status.state == "pending"
    await world.proven(account, "*.apps.example.com", type_="dns-01")
    assert (await world.order(account, "apps.example.com")).status.state == "pending"
    order = await world.order(account, "*.apps.example.com")
    assert (order.status.state, order.status.authorizations[0].wildcard) == ("ready", True)
    issued = certificate_of(await world.finalized(account, order))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["*.apps.example.com"]
    problem = await refusal(
        world.finalized(
            account,
            await world.order(account, "*.apps.example.com"),
            pki.csr("apps.example.com"),
        )
    )
    assert problem.type == ProblemType.BAD_CSR


# Dates


@pytest.mark.requirement("M108")
async def test_the_dates_of_the_certificate_are_those_that_were_asked_for_to_the_second(world: World) -> None:
    account = await world.account()
    start = world.clock() + timedelta(hours=3, microseconds=7)
    for dates in (
        {"not_before": start},
        {"not_after": start + timedelta(days=9)},
        {"not_before": start, "not_after": start + timedelta(minutes=5)},
        {"not_before": world.clock(), "not_after": world.clock() + timedelta(days=90)},
    ):
        order = await world.services.orders.create(world.caller(account), wanted("www.example.com", **dates))
        if not order.spec.authorized:  # the later ones reuse the proof of the first
            await world.respond(order)
        order = await world.finalized(account, await world.services.orders.poll(order))
        issued = certificate_of(order)
        if order.spec.not_before is not None:
            assert issued.not_valid_before_utc == order.spec.not_before == dates["not_before"].replace(microsecond=0)
        if order.spec.not_after is not None:
            assert issued.not_valid_after_utc == order.spec.not_after == dates["not_after"].replace(microsecond=0)


@pytest.mark.requirement("M108")
async def test_dates_are_told_in_utc_and_to_the_second(server: Server) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    text = (later + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.123456789+02:00")
    order = await server.order("www.example.com", notAfter=text)
    assert order.json["notAfter"] == later.strftime("%Y-%m-%dT%H:%M:%SZ")
