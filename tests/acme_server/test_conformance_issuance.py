"""RFC 8555, 7.4 on the whole server: from newOrder to the certificate, as it should be and as attackers try it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from cryptography import x509
from msgspec.structs import replace

from kms.issuers import Issued, SecretIssuer
from kms.pki.ca import NameConstraints
from kms.pki.certificate import LeafTemplate, certificate_pem
from kms.resources.kinds import ORDERS
from kms.resources.policies import DNSNameRules, PolicySpec
from kms.resources.profiles import CertificateContents
from tests.support import pki
from tests.support.acme import ClientKey
from tests.support.server import Answer, Server, running_replica, running_server

HOUR = timedelta(hours=1)


def leaf_of(answer: Answer) -> x509.Certificate:
    return x509.load_pem_x509_certificates(answer.text.encode())[0]


@pytest.mark.requirement(
    "M56", "M58", "M60", "M61", "M106", "M110", "M123", "M126", "M127", "M129", "M130", "M143", "M146", "C1", "M111"
)
async def test_every_answer_from_account_to_certificate_says_what_rfc_8555_wants(server: Server) -> None:
    order = await server.order("www.example.com", "WWW.example.com", "api.example.com")
    assert order.status == 201  # M106
    assert order.json["status"] == "pending"
    assert {"expires", "identifiers", "authorizations", "finalize"} <= order.json.keys()  # M56
    assert not {"certificate", "error", "notBefore", "notAfter"} & order.json.keys()  # M60
    assert [each["value"] for each in order.json["identifiers"]] == ["www.example.com", "api.example.com"]  # M110
    for url, name in zip(order.json["authorizations"], ("www.example.com", "api.example.com"), strict=True):
        authorization = await server.post(url)
        assert authorization.json["identifier"] == {"type": "dns", "value": name}
        assert "wildcard" not in authorization.json  # M61
        (challenge,) = authorization.json["challenges"]
        assert len(challenge["token"]) >= 22  # SEC47, M146
        responded = await server.post(challenge["url"], {"keyAuthorization": "ignored"})  # M127
        assert responded.status == 200
        assert f'<{url}>;rel="up"' in responded.urls  # M129
    ready = await server.post(order.location)
    assert ready.json["status"] == "ready"
    assert ready.json["authorizations"] == order.json["authorizations"]  # M58
    valid = await server.finalize(ready)
    assert (valid.status, valid.location, valid.json["status"]) == (200, order.location, "valid")  # C1, M106
    chain = await server.post(valid.json["certificate"])
    assert chain.headers["Content-Type"] == "application/pem-certificate-chain"  # M123
    assert chain.text.startswith("-----BEGIN CERTIFICATE-----\n")
    assert chain.text.endswith("-----END CERTIFICATE-----\n")
    assert "PRIVATE" not in chain.text  # M126
    proven = (await server.post(order.json["authorizations"][0])).json
    assert proven["status"] == "valid"
    assert proven["expires"]  # M61, M130
    assert proven["challenges"][0]["validated"]  # M143


@pytest.mark.requirement("M108", "SEC31")
async def test_no_certificate_lasts_longer_than_the_policy_allows_whatever_dates_are_asked_for() -> None:
    async with running_server() as server:
        policy = PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",)), maximum_duration="48h")
        server.world.configure(policy=policy, contents=CertificateContents(duration="24h"))
        await server.register()
        now = server.world.clock()
        for dates in (
            {},
            {"notAfter": now + 48 * HOUR},
            {"notAfter": now + 48 * HOUR + timedelta(minutes=4)},  # the client's clock is fast
            {"notBefore": now + HOUR, "notAfter": now + 49 * HOUR},
        ):
            wanted = {name: f"{date:%Y-%m-%dT%H:%M:%SZ}" for name, date in dates.items()}
            leaf = await server.certificate(await server.finalize(await server.ready(**wanted)))
            assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= 48 * HOUR
            if "notAfter" in dates:
                assert leaf.not_valid_after_utc == dates["notAfter"]
            if "notBefore" in dates:
                assert leaf.not_valid_before_utc == dates["notBefore"]


@pytest.mark.requirement("M108")
async def test_dates_that_were_both_asked_for_leave_the_policy_no_room() -> None:
    async with running_server() as server:
        policy = PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",)), maximum_duration="48h")
        server.world.configure(policy=policy, contents=CertificateContents(duration="24h"))
        await server.register()
        start = server.world.clock() + HOUR
        refused = await server.order(
            notBefore=f"{start:%Y-%m-%dT%H:%M:%SZ}",
            notAfter=f"{start + 48 * HOUR + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}",
        )
        assert refused.problem["type"] == "malformed"
        assert "at most 48h (spec.maximumDuration)" in refused.problem["detail"]


@pytest.mark.requirement("SEC28")
async def test_a_policy_that_became_stricter_counts_for_orders_that_are_ready() -> None:
    async with running_server() as server:
        server.world.configure(
            policy=PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",)), maximum_duration="480h"),
            contents=CertificateContents(duration="24h"),
        )
        await server.register()
        end = server.world.clock() + 480 * HOUR
        order = await server.ready(notAfter=f"{end:%Y-%m-%dT%H:%M:%SZ}")
        server.world.configure(
            policy=PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",)), maximum_duration="48h"),
            contents=CertificateContents(duration="24h"),
        )
        finalized = await server.finalize(order)
        assert "certificate" not in finalized.json


@pytest.mark.requirement("SEC31", "SEC66")
async def test_a_profile_that_breaks_its_policy_issues_nothing_before_the_operator_has_said_so() -> None:
    async with running_server() as server:
        await server.register()
        order = await server.ready()
        server.world.configure(
            policy=PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",)), maximum_duration="1h"),
            contents=CertificateContents(duration="24h"),
        )
        finalized = await server.finalize(order)
        assert finalized.status == 503
        assert int(finalized.headers["Retry-After"]) > 0


@pytest.mark.requirement("M69", "M135")
async def test_a_deactivated_authorization_stops_an_order_that_is_waiting_for_its_issuer(server: Server) -> None:
    order = await server.ready()
    server.world.clock.ahead = timedelta(minutes=10)  # so that the CSR is stored first
    server.world.remove_authority_key()
    processing = await server.finalize(order)
    assert processing.json["status"] == "processing", processing.text
    assert processing.headers["Retry-After"] == "1"
    gone = await server.post(order.json["authorizations"][0], {"status": "deactivated"})
    assert gone.json["status"] == "deactivated"
    server.world.install_authority()
    polled = await server.post(order.location)
    assert polled.json["status"] == "invalid"
    assert "certificate" not in polled.json


async def looked_at(
    server: Server, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Answer], Awaitable[object]]
) -> Answer:
    """What a poll is told that makes the certificate of an order in processing, to which `meanwhile` happens."""
    order = await server.ready()
    server.world.clock.ahead = timedelta(minutes=10)
    server.world.remove_authority_key()
    await server.finalize(order)
    signing, go_on = asyncio.Event(), asyncio.Event()
    sign = SecretIssuer.sign

    async def slow(issuer: SecretIssuer, template: LeafTemplate) -> Issued:
        signing.set()
        await go_on.wait()
        return await sign(issuer, template)

    monkeypatch.setattr(SecretIssuer, "sign", slow)
    server.world.install_authority()
    polled = asyncio.create_task(server.post(order.location))
    await signing.wait()
    await meanwhile(order)
    go_on.set()
    return await polled


async def test_who_looks_at_an_order_that_ends_while_its_certificate_is_made_is_told_how_it_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def give_up(order: Answer) -> None:
        await server.post(order.json["authorizations"][0], {"status": "deactivated"})

    answer = await looked_at(server, monkeypatch, give_up)
    assert (answer.status, answer.json["status"]) == (200, "invalid")
    assert answer.json["error"]["detail"] == "www.example.com: The authorization was deactivated."


async def test_an_order_that_is_deleted_while_its_certificate_is_made_is_not_found(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def delete(order: Answer) -> None:
        server.world.api.remove(ORDERS, "pki", order.location.rsplit("/", 1)[1])

    assert (await looked_at(server, monkeypatch, delete)).status == 404


@pytest.mark.requirement("M108", "SEC40")
@pytest.mark.parametrize(
    ("not_before", "not_after"),
    [
        ("0001-01-01T00:00:00+23:59", None),
        (None, "9999-12-31T23:59:59-23:59"),
        (None, "0001-01-01T00:00:00+23:59"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z"),
    ],
)
async def test_dates_at_the_ends_of_time_are_refused_and_break_nothing(
    server: Server, not_before: str | None, not_after: str | None
) -> None:
    dates = {"notBefore": not_before, "notAfter": not_after}
    refused = await server.order(**{name: date for name, date in dates.items() if date})
    assert refused.problem["type"] == "malformed"
    assert refused.problem["detail"].startswith("The requested validity cannot be honoured")


@pytest.mark.requirement("M107", "M108", "SEC31")
async def test_an_end_beyond_that_of_the_ca_is_refused_before_anybody_solves_a_challenge(server: Server) -> None:
    last = server.world.clock() + 2 * HOUR
    server.world.install_authority(not_after=last)
    refused = await server.order(notAfter=f"{last + HOUR:%Y-%m-%dT%H:%M:%SZ}")
    assert refused.problem["type"] == "malformed"
    assert refused.problem["detail"].endswith(f"the CA's own certificate ends at {last:%Y-%m-%dT%H:%M:%SZ}.")
    assert (await server.certificate(await server.finalize(await server.ready()))).not_valid_after_utc == last


async def test_dates_in_another_time_zone_are_the_same_moments(server: Server) -> None:
    end = server.world.clock() + 24 * HOUR
    order = await server.ready(notAfter=f"{end + 2 * HOUR:%Y-%m-%dT%H:%M:%S}+02:00")
    assert (await server.certificate(await server.finalize(order))).not_valid_after_utc == end


@pytest.mark.requirement("S114", "M115", "M157", "SEC26")
async def test_the_key_of_an_account_gets_no_certificate_and_the_order_stays_ready(server: Server) -> None:
    other = ClientKey()
    assert (await server.register(other)).status == 201
    order = await server.ready()
    refused = await server.finalize(order, pki.csr("www.example.com", signed_with=other.private))
    assert refused.problem["type"] == "badCSR"
    refused = await server.finalize(order, pki.csr("www.example.com", signed_with=server.key.private))
    assert refused.problem["type"] == "badCSR"
    assert (await server.post(order.location)).json["status"] == "ready"  # M114


@pytest.mark.requirement("M113", "SEC27", "SEC35", "C9")
async def test_twenty_finalizations_over_two_replicas_come_to_one_certificate(server: Server) -> None:
    other_world = server.world.another()
    server.world.sole_writer = False
    async with running_replica(other_world, server.nonces) as other:
        order = await server.ready()
        request = pki.csr("www.example.com")
        answers = await asyncio.gather(
            *(server.finalize(order, request, at=(server, other)[number % 2]) for number in range(20))
        )
        assert {each.status for each in answers} == {200}
        chains = [await server.post(answers[0].json["certificate"], at=each) for each in (server, other)]
        assert len({leaf_of(each).serial_number for each in chains}) == 1
        different = await server.finalize(order, pki.csr("www.example.com", common_name="www.example.com"), at=other)
        assert different.problem["type"] == "orderNotReady"
        assert different.status == 403
    await other_world.services.worker.drain(1)


@pytest.mark.requirement("M107")
async def test_names_that_clients_would_not_take_from_this_ca_are_refused_before_anybody_solves_a_challenge() -> None:
    async with running_server() as server:
        constraints = NameConstraints(permitted_domains=("example.com",), excluded_domains=("db.example.com",))
        server.world.install_authority(constraints=constraints)
        await server.register()
        refused = await server.order("www.example.com", "a.db.example.com")
        assert refused.problem["type"] == "rejectedIdentifier"
        assert refused.problem["detail"] == (
            'DNS name "a.db.example.com" is excluded by the nameConstraints of CertificateAuthority pki/ca'
            ' ("CN=Test Root"): it is within db.example.com'
        )
        assert refused.problem["subproblems"][0]["identifier"] == {"type": "dns", "value": "a.db.example.com"}
        order = await server.ready("www.example.com")
        server.world.install_authority(constraints=NameConstraints(excluded_domains=("www.example.com",)))
        assert (await server.finalize(order)).problem["type"] == "badCSR"


@pytest.mark.requirement("S124", "C17")
async def test_a_certificate_has_links_to_its_other_chains(server: Server) -> None:
    world = server.world
    authority = world.authorities.get("pki", "ca")
    assert authority is not None
    other = pki.root(common_name="Other Root", with_key=pki.key(which="other root"))
    crosses = (
        certificate_pem(pki.below(other, common_name="Test Root", with_key=pki.key(which="root")).certificate),
        certificate_pem(pki.below(other, common_name="Test Root", with_key=pki.key(which="stranger")).certificate),
    )
    world.authorities.put(
        replace(
            authority,
            metadata=replace(authority.metadata, resource_version=""),
            status=replace(authority.status, alternate_chains=crosses),
        )
    )
    order = await server.finalize(await server.ready())
    url = order.json["certificate"]
    default = await server.post(url)
    assert [each for each in default.urls if "alternate" in each] == [f'<{url}/1>;rel="alternate"']
    alternate = await server.post(f"{url}/1")
    assert alternate.headers["Content-Type"] == "application/pem-certificate-chain"
    assert [each for each in alternate.urls if "alternate" in each] == [f'<{url}>;rel="alternate"']
    first, topmost = x509.load_pem_x509_certificates(alternate.text.encode())
    assert first == x509.load_pem_x509_certificate(default.text.encode())
    assert topmost.issuer == other.certificate.subject
    topmost.public_key()
    first.verify_directly_issued_by(topmost)
    for unknown in (f"{url}/2", f"{url}/0", f"{url}/10", f"{url}/x"):
        assert (await server.post(unknown)).status == 404


@pytest.mark.requirement("SEC29")
async def test_a_certificate_points_to_the_list_and_the_certificate_of_its_ca(server: Server) -> None:
    leaf = await server.certificate(await server.finalize(await server.ready()))
    (point,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    key = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    assert [each.value for each in point.full_name or ()] == [f"http://acme.example.com/crl/pki/ca/{key.hex()}.crl"]
    (access,) = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert access.access_location.value == f"http://acme.example.com/ca/pki/ca/{key.hex()}.crt"


@pytest.mark.requirement("SEC59", "M117")
async def test_a_ca_that_has_ended_signs_nothing_and_the_order_waits_for_the_next(server: Server) -> None:
    world = server.world
    world.install_authority(not_after=world.clock() + HOUR)
    order = await server.ready()
    world.clock.ahead += 2 * HOUR
    answer = await server.finalize(order)
    assert (answer.json["status"], answer.headers["Retry-After"]) == ("processing", "1")
    world.install_authority()
    assert (await server.post(order.location)).json["status"] == "valid"
