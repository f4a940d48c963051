"""The programs are killed at random moments while orders run, and started again: nothing is lost, nothing issued twice.

KMS_ACME_E2E_KILLS says how often (10; `make soak`: 50). The moments come from a seed, which is printed where the test
fails; KMS_ACME_E2E_SEED repeats it, as far as a machine with other things to do repeats anything.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509

from e2e.cluster import CommandFailed
from e2e.load.client import Client, http01_of
from e2e.load.keys import certificate_key, certificate_request
from e2e.support.enrollment import secret
from e2e.support.programs import RELEASE, Program, Server
from kms.resources.kinds import CREDENTIALS
from kms.resources.secret_names import OWNER_UID
from tests.support.eventually import becomes, until
from tests.support.installation import KILLS, Installation
from tests.support.retrying import retried

SERVER_KILLS = KILLS // 3
OPERATOR_KILLS = KILLS - 2 * SERVER_KILLS
CLIENTS = 6
PATIENCE = 20.0
"""Seconds after which a client gives an order up and begins another one."""
PAUSE = 0.5
"""Seconds between two orders of a client: programs that start need the processor, too."""
SETTLED = 90.0

pytestmark = pytest.mark.chance


@dataclass
class Ledger:
    """What the clients know: who ordered what, which authorizations were answered, which chain an order came to."""

    orders: dict[str, Client] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    certificates: dict[str, str] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)


@pytest.fixture
def pair(installation: Installation) -> Iterator[tuple[Server, ...]]:
    """Two servers that know of each other, so that one may take over what the other has left."""
    with installation.replicas(2) as started:
        yield started


@pytest.mark.requirement("SEC34", "SEC35")
async def test_orders_survive_crashes_and_no_certificate_is_issued_twice_or_lost(
    installation: Installation, pair: tuple[Server, ...], team: str, chance: random.Random
) -> None:
    enrollment, ledger = installation.profile(team), Ledger()
    external_account = installation.credential(team)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                installation.client(enrollment, servers=[each.url for each in pair], external_account=external_account)
            )
            for _ in range(CLIENTS)
        ]
        async with in_background(
            *(ordering(installation, client, ledger, f"c{number}") for number, client in enumerate(clients)),
            rotating(installation, team, chance),
        ):
            await asyncio.gather(
                *(killing(each, SERVER_KILLS, chance) for each in pair),
                killing(installation.programs.operator, OPERATOR_KILLS, chance),
            )
            ordered = len(ledger.orders)
            # Also where the machine is so busy that no order ended between two kills: after them, all is well again.
            await until(lambda: ledger.ended["valid"] >= CLIENTS, seconds=SETTLED)
        met = sum((client.counts for client in clients), Counter())
        print(f"{len(ledger.orders)} orders: {dict(ledger.ended)}; met on the way: {dict(met)}")
        assert ordered, "orders were under way while the programs were killed"
        assert not ledger.ended["invalid"]  # every name was proven: a crash is no reason to refuse
        await no_order_is_stuck(ledger)
        await what_was_handed_out_is_what_is_stored(installation, team, ledger)
    await every_credential_has_one_key(installation, team)


async def killing(victim: Program, times: int, chance: random.Random) -> None:
    """Kill a program at a random moment and start it again, again and again. It is ready at the end."""
    longest = 2.5
    for _ in range(times):
        await asyncio.sleep(chance.uniform(0.0, longest))
        await asyncio.to_thread(victim.kill)
        began = time.monotonic()
        await asyncio.to_thread(victim.start)
        if chance.random() < 0.8:  # else the next one comes while it starts
            await asyncio.to_thread(victim.wait_until_ready)
            # Where the machine is busy, what it does once it runs takes long as well as how it starts.
            longest = max(2.5, 2 * (time.monotonic() - began))
    await asyncio.to_thread(victim.wait_until_ready)


async def ordering(installation: Installation, client: Client, ledger: Ledger, label: str) -> None:
    """Obtain one certificate after the other, until cancelled."""
    for number in itertools.count():
        try:
            async with asyncio.timeout(PATIENCE):
                ledger.ended[await obtained(installation, client, ledger, f"{label}-{number}.test")] += 1
        except TimeoutError:
            ledger.ended["given up"] += 1
        await asyncio.sleep(PAUSE)


async def obtained(installation: Installation, client: Client, ledger: Ledger, name: str) -> str:
    """From new-order to the certificate as a client does that asks again where it gets no answer; the order's end."""
    order = await retried(lambda: client.new_order([name, f"also.{name}"]))
    ledger.orders[order.url] = client
    for url in order.authorizations:
        challenge = http01_of(await retried(lambda url=url: client.authorization(url)))  # type: ignore[misc]
        installation.answerer.add(challenge["token"], client.key.thumbprint)
        await retried(lambda challenge=challenge: client.respond(challenge))  # type: ignore[misc]
        ledger.answered.add(url)
    request = certificate_request([name, f"also.{name}"], certificate_key())
    while (order := await retried(lambda: client.order(order.url))).status != "valid":
        if order.status == "invalid":
            return "invalid"
        if order.status == "ready":
            await retried(lambda: client.finalize(order, request))
        await asyncio.sleep(0.05)
    ledger.certificates[order.url] = (await retried(lambda: client.certificate(order))).chain
    return "valid"


async def rotating(installation: Installation, team: str, chance: random.Random) -> None:
    """Make credentials, and replace the keys of some, until cancelled."""
    for number in itertools.count():
        manifest = {"profileRef": {"name": "web"}}
        name = f"team-{number}"
        await asyncio.to_thread(installation.apply, team, CREDENTIALS, manifest, name=name)
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        victim = f"team-{chance.randrange(number + 1)}-eab"
        await asyncio.to_thread(
            installation.cluster.kubectl, "delete", "secret", victim, f"--namespace={team}", "--ignore-not-found"
        )
        await asyncio.sleep(chance.uniform(0.0, 1.0))


async def no_order_is_stuck(ledger: Ledger) -> None:
    """Once its client asks again, every order is where the client can go on, or at its end (SEC34)."""

    async def settles(url: str, client: Client) -> None:
        deadline = time.monotonic() + SETTLED
        while (order := await client.order(url)).status not in {"ready", "valid", "invalid"}:
            states = {each: (await client.authorization(each))["status"] for each in order.authorizations}
            waiting = [each for each, state in states.items() if state == "pending" and each in ledger.answered]
            if order.status == "pending" and not waiting:
                return  # it waits for its client, who has given it up
            assert time.monotonic() < deadline, (url, order.status, states)
            await asyncio.sleep(1)

    await asyncio.gather(*(settles(*each) for each in ledger.orders.items()))


async def what_was_handed_out_is_what_is_stored(installation: Installation, team: str, ledger: Ledger) -> None:
    """SEC35: no certificate that is not in the inventory. SEC27: and no two for one order, no serial number twice."""
    stored = {each["metadata"]["name"]: each["status"] for each in installation.objects("acmeorders", team)}
    assert not [name for name, status in stored.items() if status.get("state") == "processing"]
    certificates = installation.certificates(team)
    for url, chain in ledger.certificates.items():
        assert certificates[url.rpartition("/")[2]] == chain
        assert (await ledger.orders[url].certificate(await ledger.orders[url].order(url))).chain == chain
    chains = [status["certificate"] for status in stored.values() if status.get("state") == "valid"]
    serials = [x509.load_pem_x509_certificate(each.encode()).serial_number for each in chains]
    assert len(set(serials)) == len(serials) >= len(ledger.certificates)


async def every_credential_has_one_key(installation: Installation, team: str) -> None:
    """The user's Secret and the server's verification copy say the same, and there is no copy of an older key."""

    async def all_agree() -> bool:
        return all(agrees(each) for each in installation.objects("eabcredentials", team))

    def agrees(credential: dict[str, Any]) -> bool:
        name, uid = credential["metadata"]["name"], credential["metadata"]["uid"]
        copies = installation.objects("secrets", RELEASE, **{OWNER_UID: uid})
        try:
            users = secret(installation.cluster, team, f"{name}-eab")
        except CommandFailed:
            return False
        shown = credential.get("status", {}).get("keyID")
        return [_texts(each) for each in copies] == [(users["kid"], users["secret"])] and shown == users["kid"]

    assert len(installation.objects("eabcredentials", team)) > 3
    await becomes(all_agree, seconds=SETTLED)


def _texts(copy: dict[str, Any]) -> tuple[str, str]:
    kid, mac_key = (base64.b64decode(copy["data"][key]).decode() for key in ("kid", "secret"))
    return kid, mac_key


@contextlib.asynccontextmanager
async def in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these beside the block and end them with it; what one of them dies of is raised there."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [each for each in ends if isinstance(each, Exception)]
    if failures:
        raise ExceptionGroup("in the background", failures)
