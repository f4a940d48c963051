"""Two servers behind one external URL: to their clients they are one (SEC12, SEC19, SEC20, SEC27, SEC56)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from e2e.load.client import Client, http01_of
from e2e.load.exchange import Answer, Exchange
from e2e.load.keys import AccountKey, b64url, certificate_key, certificate_request
from e2e.support.enrollment import Enrollment
from kms.resources.kinds import PROFILES
from kms.resources.secret_names import CREDENTIAL_UID
from tests.support.budget import cost
from tests.support.eventually import becomes
from tests.support.installation import PROFILE, Installation, refusal

AT_ONCE = 1.0
"""Within so many seconds all servers know, on a machine that does little else."""


async def test_a_client_that_changes_the_server_with_every_request_notices_nothing(
    installation: Installation, client: Client, team: str
) -> None:
    for number in range(6):
        certificate = await client.obtain([f"www-{number}.test", f"api-{number}.test"], installation.answerer.add)
        assert certificate.chain == installation.certificates(team)[certificate.order.url.rpartition("/")[2]]
    # Each nonce has been redeemed by the server that had issued it, wherever it was used.
    assert client.counts == {}


async def test_an_order_that_goes_through_three_servers_costs_three_writes_and_one_read(
    installation: Installation, servers: tuple[str, str], third: str, team: str
) -> None:
    enrollment, audit = installation.open_profile(team), installation.cluster.audit()
    async with installation.client(enrollment, servers=(*servers, third)) as client:

        async def issue(one: int) -> None:
            await client.obtain([f"three-{one}.test"], installation.answerer.add)

        async def is_cheap() -> bool:
            """Not before all servers know each other."""
            return await cost(audit, issue) == {
                "create acmeorders": 1,
                "update acmeorders/status": 2,
                "get acmeaccounts": 1,
            }

        await becomes(is_cheap)


@pytest.mark.requirement("SEC56", "C7")
async def test_nothing_that_one_server_answers_is_older_than_what_was_written_at_the_other(
    installation: Installation, apart: tuple[Client, Client]
) -> None:
    writer, reader = apart
    # They are one client: its nonces tell each server what it has seen at the other.
    reader.exchange.nonces = writer.exchange.nonces
    revoke = (await writer.exchange.directory())["revokeCert"]
    for number in range(5):
        order = await writer.new_order([f"read-{number}.test"])
        (url,) = order.authorizations
        assert (await reader.order(order.url)).body == order.body
        assert (await reader.authorization(url))["status"] == "pending"
        challenge = http01_of(await writer.authorization(url))
        installation.answerer.add(challenge["token"], writer.key.thumbprint)
        await writer.respond(challenge)
        await becomes(partial(has_status, writer, url, "valid"))
        assert (await reader.authorization(url))["status"] == "valid"
        assert (await reader.order(order.url)).status == "ready"
        request = certificate_request([f"read-{number}.test"], certificate_key())
        finalized = await writer.finalize(order, request)
        assert (await reader.order(order.url)).body == finalized.body
        leaf = (await reader.certificate(finalized)).leaf
        await writer.post("authorization", url, {"status": "deactivated"})
        assert (await reader.authorization(url))["status"] == "deactivated"
        revocation = {"certificate": b64url(leaf.public_bytes(Encoding.DER))}
        await writer.post("revoke", revoke, revocation)
        assert await refusal(reader.post("revoke", revoke, revocation)) == "alreadyRevoked"
        given_up = await writer.new_order([f"given-up-{number}.test"])
        await reader.order(given_up.url)
        await writer.post("authorization", given_up.authorizations[0], {"status": "deactivated"})
        assert (await reader.order(given_up.url)).status == "invalid"
    await an_account_is_what_it_was_made_at_the_other_server(writer, reader)


async def has_status(client: Client, authorization: str, status: str) -> bool:
    return bool((await client.authorization(authorization))["status"] == status)


async def an_account_is_what_it_was_made_at_the_other_server(writer: Client, reader: Client) -> None:
    """Another contact, another key, the end."""
    assert writer.account_url is not None
    await writer.post("account", writer.account_url, {"contact": ["mailto:new@example.com"]})
    assert (await reader.post("account", writer.account_url)).json()["contact"] == ["mailto:new@example.com"]
    url, new = (await writer.exchange.directory())["keyChange"], AccountKey.generate()
    members = {"account": writer.account_url, "oldKey": writer.key.jwk}
    await writer.post("key-change", url, new.jws({"alg": "ES256", "jwk": new.jwk, "url": url}, members))
    writer.key = reader.key = new
    assert (await reader.post("account", writer.account_url)).json()["status"] == "valid"
    assert (await reader.register(only_return_existing=True)).location == writer.account_url
    await writer.post("account", writer.account_url, {"status": "deactivated"})
    assert await refusal(reader.post("account", writer.account_url)) == "unauthorized"
    assert await refusal(reader.register(only_return_existing=True)) == "unauthorized"


async def test_a_change_of_a_profile_acts_at_both_servers_at_once(
    installation: Installation, servers: tuple[str, str], team: str
) -> None:
    enrollment = installation.open_profile(team)
    for website in ("https://one.example", "https://two.example"):
        acme = {"externalAccountBinding": "Disabled", "website": website}
        spec = {"issuerRef": {"name": PROFILE}, "policyRef": {"name": PROFILE}, "enrollment": {"acme": acme}}
        await asyncio.to_thread(installation.apply, team, PROFILES, spec)
        await asyncio.gather(*(becomes(partial(tells, enrollment, each, website), seconds=AT_ONCE) for each in servers))


async def tells(enrollment: Enrollment, server: str, website: str) -> bool:
    async with Exchange(enrollment.directory_url, tls=enrollment.tls, servers=[server]) as exchange:
        return bool((await exchange.directory())["meta"].get("website") == website)


@pytest.mark.requirement("SEC19")
async def test_a_nonce_that_is_used_many_times_at_once_at_both_servers_is_accepted_once(client: Client) -> None:
    url = (await client.exchange.directory())["newOrder"]
    for _ in range(5):
        nonce = await client.exchange.new_nonce("GET")
        order = {"identifiers": [{"type": "dns", "value": "replayed.test"}]}
        answers = await asyncio.gather(
            *(
                client.exchange.signed(url, order, key=client.key, kid=client.account_url, nonce=nonce)
                for _ in range(20)
            )
        )
        assert Counter((each.status, each.problem_type) for each in answers) == {(201, ""): 1, (400, "badNonce"): 19}
        assert all(each.nonce for each in answers)


@pytest.mark.requirement("SEC27", "C9")
async def test_of_many_finalizations_at_both_servers_comes_one_certificate(
    installation: Installation, client: Client, team: str
) -> None:
    for number in range(3):
        names = [f"raced-{number}.test"]
        order = await installation.proven(client, *names)
        request = certificate_request(names, certificate_key())
        answers = await all_at_once(client, order.body["finalize"], [request] * 20)
        assert {each.status for each in answers} <= {200, 403}
        assert {each.problem_type for each in answers} <= {"", "orderNotReady"}
        assert any(each.status == 200 for each in answers)

        async def is_valid(url: str = order.url) -> bool:
            return (await client.order(url)).status == "valid"

        await becomes(is_valid)
        chains = {(await client.certificate(await client.order(order.url))).chain for _ in range(4)}
        assert chains == {installation.certificates(team)[order.url.rpartition("/")[2]]}
        # The same request again is answered with the order (C9), another one is refused for good.
        assert (await client.finalize(order, request)).status == "valid"
        other = certificate_request(names, certificate_key())
        assert {each.status for each in await all_at_once(client, order.body["finalize"], [other] * 4)} == {403}
        assert (await client.certificate(await client.order(order.url))).chain in chains


@pytest.mark.requirement("SEC27")
async def test_of_two_different_requests_at_both_servers_one_is_certified_and_the_other_refused(
    installation: Installation, client: Client
) -> None:
    for number in range(3):
        names = [f"either-{number}.test"]
        order = await installation.proven(client, *names)
        keys = [certificate_key(), certificate_key()]
        answers = await all_at_once(client, order.body["finalize"], [certificate_request(names, key) for key in keys])
        assert sorted(each.status for each in answers) == [200, 403]
        (winner,) = (key for key, answer in zip(keys, answers, strict=True) if answer.status == 200)
        certificate = await client.certificate(await client.order(order.url))
        assert certificate.leaf.public_key() == winner.public_key()


async def all_at_once(client: Client, url: str, requests: Sequence[bytes]) -> list[Answer]:
    """Send these certificate requests at the same time, one server after the other."""
    nonces = [await client.exchange.new_nonce("GET") for _ in requests]
    return await asyncio.gather(
        *(
            client.exchange.signed(url, {"csr": b64url(each)}, key=client.key, kid=client.account_url, nonce=nonce)
            for each, nonce in zip(requests, nonces, strict=True)
        )
    )


@pytest.mark.requirement("M82")
async def test_one_key_that_registers_many_times_at_both_servers_gets_one_account(
    installation: Installation, servers: tuple[str, str], team: str
) -> None:
    enrollment, key = installation.open_profile(team), AccountKey.generate()
    async with Exchange(enrollment.directory_url, tls=enrollment.tls, servers=servers) as exchange:
        clients = [Client(exchange, key) for _ in range(12)]
        answers = await asyncio.gather(*(each.register() for each in clients))
    assert len({each.location for each in answers}) == 1
    assert Counter(each.status for each in answers) == {201: 1, 200: 11}
    assert len(installation.objects("acmeaccounts", team)) == 1


@pytest.mark.requirement("SEC12")
async def test_of_many_keys_with_a_credential_for_one_account_one_gets_it_and_the_others_leave_nothing(
    installation: Installation, servers: tuple[str, str], team: str
) -> None:
    enrollment = installation.profile(team)
    for number in range(3):
        name = f"one-{number}"
        external_account = installation.credential(team, name=name, maximumAccounts=1)
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(installation.client(enrollment, servers=order, register=False))
                for order in [servers, servers[::-1]] * 6
            ]
            refusals = await asyncio.gather(
                *(refusal(each.register(external_account=external_account)) for each in clients)
            )
            assert Counter(refusals) == {"": 1, "unauthorized": 11}
            (winner,) = (client for client, refused in zip(clients, refusals, strict=True) if not refused)
            await winner.obtain([f"winner-{number}.test"], installation.answerer.add)
        uid = installation.object("eabcredential", team, name)["metadata"]["uid"]
        (account,) = installation.objects("acmeaccounts", team, **{CREDENTIAL_UID: uid})
        assert account["status"]["state"] == "valid"
        assert winner.account_url is not None
        assert winner.account_url.endswith(account["metadata"]["name"])


@pytest.mark.requirement("M103", "S104", "SEC07")
async def test_an_account_that_is_deactivated_at_one_server_is_refused_by_the_other(
    installation: Installation, apart: tuple[Client, Client], team: str
) -> None:
    client, other = apart
    order = await installation.proven(other, "deactivated.test")
    assert client.account_url is not None
    await client.post("account", client.account_url, {"status": "deactivated"})

    async def is_refused() -> bool:
        return await refusal(other.order(order.url)) == "unauthorized"

    await becomes(is_refused, seconds=2)
    request = certificate_request(["deactivated.test"], certificate_key())
    for refused in (other.new_order(["more.test"]), other.finalize(order, request), other.register()):
        assert await refusal(refused) == "unauthorized"

    async def is_cancelled() -> bool:
        return bool(installation.order(team, order.url)["status"]["state"] == "invalid")

    await becomes(is_cancelled)  # S104


@pytest.mark.requirement("SEC07", "SEC56", "SEC77")
async def test_an_account_that_an_administrator_suspends_gets_nothing_from_either_server_until_it_is_resumed(
    installation: Installation, apart: tuple[Client, Client], team: str
) -> None:
    client, other = apart
    order = await installation.proven(client, "suspended.test")
    assert await other.order(order.url)
    assert client.account_url is not None
    account = ("--account", f"{team}/{client.account_url.rpartition('/')[2]}")
    assert "1 of 1 account suspended." in await installation.manage("suspend", *account)
    request = certificate_request(["suspended.test"], certificate_key())
    for each in apart:
        assert await refusal(each.finalize(order, request)) == "unauthorized"

        async def is_refused(at: Client = each) -> bool:
            return await refusal(at.new_order(["more.test"])) == "unauthorized"

        await becomes(is_refused, seconds=AT_ONCE)
        assert (await each.order(order.url)).status == "ready"
    shown = installation.cluster.kubectl("get", "acmeacct", f"--namespace={team}", "--no-headers")
    assert shown.split()[1] == "suspended"
    await installation.manage("resume", *account)
    assert not await refusal(other.new_order(["more.test"])), "a refusal is based on a live read"
    assert (await other.finalize(order, request)).status == "valid"
    await installation.manage("deactivate", *account)

    async def is_ended() -> bool:
        return await refusal(client.order(order.url)) == "unauthorized"

    await becomes(is_ended, seconds=2)


@pytest.mark.requirement("S59", "M71", "M135", "SEC56")
async def test_what_is_proven_at_one_server_serves_the_other_until_it_is_given_up_there(
    installation: Installation, apart: tuple[Client, Client]
) -> None:
    client, other = apart
    for number in range(3):
        names = [f"shared-{number}.test"]
        first = await installation.proven(client, *names)

        async def is_reused(names: list[str] = names) -> bool:
            return (await other.new_order(names)).status == "ready"

        await becomes(is_reused, seconds=5)
        second, third = await other.new_order(names), await other.new_order(names)
        assert second.authorizations == third.authorizations == first.authorizations
        request = certificate_request(names, certificate_key())
        assert (await other.finalize(second, request)).status == "valid"
        await client.post("authorization", first.authorizations[0], {"status": "deactivated"})
        assert await refusal(other.finalize(third, request)) == "orderNotReady"
        assert (await client.order(third.url)).status == "invalid"


async def test_a_challenge_that_was_answered_at_one_server_is_validated_for_the_other(
    installation: Installation, apart: tuple[Client, Client]
) -> None:
    client, other = apart
    for number in range(3):
        order = await client.new_order([f"answered-{number}.test"])
        challenge = (await client.authorization(order.authorizations[0]))["challenges"][0]
        installation.answerer.add(challenge["token"], client.key.thumbprint)
        await client.respond(challenge)

        async def is_ready(url: str = order.url) -> bool:
            return (await other.order(url)).status == "ready"

        await becomes(is_ready)


@pytest.mark.requirement("SEC20")
async def test_when_one_server_is_killed_its_clients_go_on_with_the_other(
    installation: Installation, servers: tuple[str, str], team: str
) -> None:
    enrollment = installation.open_profile(team)
    victim = next(each for each in installation.programs.servers if each.url == servers[0])
    async with (
        installation.client(enrollment, servers=servers[:1]) as client,
        Exchange(enrollment.directory_url, tls=enrollment.tls, servers=servers[1:]) as elsewhere,
    ):
        order = await installation.proven(client, "orphan.test")
        victim.kill()
        try:
            other = Client(elsewhere, client.key, account_url=client.account_url)
            elsewhere.nonces.extend(client.exchange.nonces)
            finalized = await other.finalize(order, certificate_request(["orphan.test"], certificate_key()))
            assert finalized.status == "valid"
            # The nonces of the dead are refused once, and what comes back is good (SEC20).
            assert other.counts == {"badNonce": 1}
        finally:
            victim.restart()
