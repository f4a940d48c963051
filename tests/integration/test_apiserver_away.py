"""The API server goes away in the middle of an order: clients are told to come again, and later everything goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from e2e.load.client import Client
from e2e.load.exchange import Answer
from e2e.load.keys import AccountKey, b64url, certificate_key, certificate_request
from tests.support.eventually import becomes
from tests.support.installation import PROFILE, Installation, refusal

RECOVERED = 40.0
"""Seconds until everything is as before; watches try again after at most 4, on an idle machine."""


@pytest.fixture(scope="module", autouse=True)
def as_before(installation: Installation) -> Iterator[None]:
    """Watches may wait before they try again; the tests of other modules need not."""
    yield
    installation.programs.restart()


@contextlib.contextmanager
def away(installation: Installation) -> Iterator[None]:
    """The time in which there is no API server."""
    installation.cluster.stop_apiserver()
    try:
        yield
    finally:
        installation.cluster.start_apiserver()
        for each in installation.programs.all:
            each.wait_until_ready(RECOVERED)


@pytest.fixture
async def client(installation: Installation, team: str) -> AsyncIterator[Client]:
    async with installation.client(installation.open_profile(team)) as client:
        yield client


def told_to_come_again(answer: Answer) -> bool:
    """503 with whole seconds to wait, never 4xx (C6), and with what belongs to every answer to a POST (SEC20)."""
    return (
        answer.status == 503
        and answer.problem_type == "serverInternal"
        and int(answer.headers["Retry-After"]) >= 1
        and answer.nonce is not None
    )


async def test_orders_that_were_begun_are_finished_when_the_api_server_is_back(
    installation: Installation, client: Client
) -> None:
    pending, ready = await client.new_order(["pending.test"]), await installation.proven(client, "ready.test")
    challenge = (await client.authorization(pending.authorizations[0]))["challenges"][0]
    installation.answerer.add(challenge["token"], client.key.thumbprint)
    request = certificate_request(["ready.test"], certificate_key())
    pids = {each.name: each.guard for each in installation.programs.all}

    with away(installation):
        # What it knows it tells, and it begins what needs no writing yet.
        assert (await client.order(ready.url)).status == "ready"
        assert (await client.respond(challenge))["status"] == "processing"
        url = pending.authorizations[0]
        polled = await client.exchange.signed(url, None, key=client.key, kid=client.account_url)
        assert told_to_come_again(polled) or polled.json()["status"] == "pending"

        async def says_so() -> bool:
            return not installation.programs.server.ready()

        await asked_for_what_it_does_not_know_it_answers_come_again(client)
        await asked_for_writes_it_answers_come_again(client, ready.body["finalize"], request)
        await becomes(says_so)
        assert "contact with the API server" in installation.programs.server.get("/readyz")[1]
        assert installation.programs.server.get("/healthz")[0] == 200

    async def is_ready() -> bool:
        return (await client.order(pending.url)).status == "ready"

    await becomes(is_ready)
    for order, name in ((pending, "pending.test"), (ready, "ready.test")):
        finalized = await client.finalize(order, certificate_request([name], certificate_key()))
        assert finalized.status == "valid"
        assert (await client.certificate(finalized)).chain
    assert {each.name: each.guard for each in installation.programs.all} == pids


async def asked_for_writes_it_answers_come_again(client: Client, finalize: str, request: bytes) -> None:
    order = {"identifiers": [{"type": "dns", "value": "new.test"}]}
    asked: Mapping[str, Mapping[str, Any]] = {
        (await client.exchange.directory())["newOrder"]: order,
        finalize: {"csr": b64url(request)},
        str(client.account_url): {"contact": ["mailto:someone@example.com"]},
    }
    for url, payload in asked.items():
        answer = await client.exchange.signed(url, payload, key=client.key, kid=client.account_url)
        assert told_to_come_again(answer), answer


async def asked_for_what_it_does_not_know_it_answers_come_again(client: Client) -> None:
    """It does not say that there is none: it cannot know (C7)."""
    directory, newcomer = await client.exchange.directory(), AccountKey.generate()
    for wanted in ({"termsOfServiceAgreed": True}, {"onlyReturnExisting": True}):
        answer = await client.exchange.signed(directory["newAccount"], wanted, key=newcomer)
        assert told_to_come_again(answer), answer
    unknown = str(client.account_url)[:-52] + "a" * 52
    answer = await client.exchange.signed(directory["newOrder"], {}, key=newcomer, kid=unknown)
    assert told_to_come_again(answer), answer
    order = directory["newOrder"].replace("new-order", "orders/" + "a" * 32)
    answer = await client.exchange.signed(order, None, key=client.key, kid=client.account_url)
    assert told_to_come_again(answer), answer


@pytest.mark.requirement("SEC56", "C7")
async def test_what_changes_before_the_watches_are_back_is_never_denied(installation: Installation, team: str) -> None:
    """Until the server sees again, it says that it does not know, and not that there is none (C7)."""
    with away(installation):
        await asyncio.sleep(3)  # so that the watches wait longer before they try again
    enrollment = installation.profile(team)
    external_account = installation.credential(team)
    statuses = []

    async def is_served() -> bool:
        async with installation.client(enrollment, register=False) as client:
            statuses.append((await client.exchange.request("GET", enrollment.directory_url)).status)
        return statuses[-1] == 200

    await becomes(is_served, seconds=RECOVERED)
    assert set(statuses) <= {200, 503}
    async with installation.client(enrollment, external_account=external_account) as client:
        await client.obtain(["afterwards.test"], installation.answerer.add)


async def test_a_credential_whose_key_is_replaced_while_the_server_hears_nothing_works(
    installation: Installation, team: str
) -> None:
    enrollment = installation.profile(team)
    old = installation.credential(team)
    with away(installation):
        await asyncio.sleep(3)
    installation.cluster.kubectl("delete", "secret", f"{PROFILE}-eab", f"--namespace={team}")
    wait = ("wait", "--for=create", f"secret/{PROFILE}-eab", f"--namespace={team}", "--timeout=120s")
    installation.cluster.kubectl(*wait)
    new = installation.credential(team)
    assert new.key_id != old.key_id
    async with installation.client(enrollment, external_account=new) as client:
        await client.obtain(["afterwards.test"], installation.answerer.add)
    async with installation.client(enrollment, register=False) as client:
        assert await refusal(client.register(external_account=old)) == "unauthorized"
