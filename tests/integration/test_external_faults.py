"""Many orders through OpenBao and through cert-manager, with their real programs, while something dies or is away.

Every order gets its certificate, and one alone; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from acme_server.orders.external_issuance import Pace
from e2e.cluster import Cluster
from e2e.cluster.audit import WRITES, AuditLog
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.load.client import Certificate, Client, Order, Refused
from e2e.load.exchange import Exchange
from e2e.load.keys import AccountKey, certificate_key, certificate_request
from e2e.support.programs import RELEASE, Server
from tests.support.certmanager_programs import running_cert_manager
from tests.support.eventually import becomes, eventually
from tests.support.external_cas import ExternalCA, cert_manager_ca, vault_ca
from tests.support.installation import SERVER, ZONE, Installation
from tests.support.installation import installation as running_installation
from tests.support.openbao import OpenBao

pytestmark = [pytest.mark.soak, pytest.mark.cluster]

ORDERS = min(int(os.environ.get("KMS_ACME_E2E_ORDERS", "40")), 200)
FEW = 6
AT_ONCE = 8
"""Finalizations at the same time."""
AWAY = 30.0
"""Seconds that something is away."""
LIMIT = 60.0
"""Seconds, on an idle machine, until all orders are valid: another server goes on with those of a dead one."""
STARTED = 180.0
"""Seconds until a server that was killed is ready again, on a busy machine."""
SWEPT = 60.0
"""Seconds until a request that nobody waits for is gone: its server may have died before it could delete it."""
WEBHOOKS = (("validatingwebhookconfiguration", "validate"), ("mutatingwebhookconfiguration", "mutate"))


@pytest.fixture(scope="module")
def site(
    clusters: Callable[..., AbstractContextManager[Cluster]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation of our own: cert-manager runs beside it, and its CRDs would stay."""
    folder = tmp_path_factory.mktemp("external")
    with (
        clusters(kinds=True) as cluster,
        running_cert_manager(cluster, folder / "cert-manager"),
        running_installation(cluster, folder) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def servers(site: Installation) -> Iterator[tuple[Server, Server]]:
    """Two servers that know of each other; the clients use no others."""
    with site.replicas(2) as (one, other):
        yield one, other


@pytest.fixture(scope="module")
def authorities(site: Installation, openbao: OpenBao) -> Iterator[dict[str, ExternalCA]]:
    with vault_ca(site, openbao) as vault, cert_manager_ca(site) as cert_manager:
        yield {"vault": vault, "certManager": cert_manager}


@pytest.fixture(params=["vault", "certManager"])
def authority(request: pytest.FixtureRequest, authorities: dict[str, ExternalCA]) -> ExternalCA:
    return authorities[request.param]


@dataclass
class Batch:
    """Orders that are proven, with their requests. The first client's server lives as long as the test."""

    site: Installation
    clients: Sequence[Client]
    orders: list[tuple[Order, bytes]] = field(default_factory=list)

    @property
    def steady(self) -> Client:
        """The client of the server that lives."""
        return self.clients[0]

    async def prove(self, count: int, label: str) -> None:
        """Create that many orders, and prove their names."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def prove(number: int) -> None:
            name = f"{label}-{number}.{ZONE}"
            async with limit:
                order = await self.site.proven(self.clients[number % len(self.clients)], name)
            self.orders.append((order, certificate_request([name], certificate_key())))

        async with asyncio.TaskGroup() as tasks:
            for number in range(len(self.orders), len(self.orders) + count):
                tasks.create_task(prove(number))

    async def finalize(self, *, meanwhile: Callable[[int], None] = lambda _: None) -> None:
        """Send all requests, in turn to each server; `meanwhile` gets the number of those that were begun."""
        limit, begun = asyncio.Semaphore(AT_ONCE), 0

        async def finalize(number: int, order: Order, request: bytes) -> None:
            nonlocal begun
            async with limit:
                begun += 1
                meanwhile(begun)
                for client in (self.clients[number % len(self.clients)], self.steady):
                    try:
                        await client.finalize(order, request)
                    except aiohttp.ClientError:  # its server has died: a client comes again
                        continue
                    except Refused as refused:
                        if refused.answer.status != 503:
                            raise
                    return

        async with asyncio.TaskGroup() as tasks:
            for number, each in enumerate(self.orders):
                tasks.create_task(finalize(number, *each))

    async def certificates(self) -> list[Certificate]:
        """The certificate of each order, once all are valid; a request that was refused with 503 is sent again."""
        left = dict(enumerate(self.orders))

        async def are_valid() -> bool:
            for number, (order, request) in tuple(left.items()):
                status = (await self.steady.order(order.url)).status
                assert status != "invalid", self.site.order(RELEASE, order.url)["status"]
                if status == "ready":
                    await self.steady.finalize(order, request)
                if status == "valid":
                    del left[number]
            return not left

        await becomes(are_valid, seconds=LIMIT)
        return [await self.steady.certificate(await self.steady.order(order.url)) for order, _ in self.orders]


@asynccontextmanager
async def batch(site: Installation, servers: Sequence[Server], authority: ExternalCA) -> AsyncIterator[Batch]:
    """One account that has a client at each server."""
    enrollment = authority.enrollment
    async with AsyncExitStack() as stack:
        key, clients = AccountKey.generate(), []
        for each in servers:
            exchange = Exchange(enrollment.directory_url, tls=enrollment.tls, servers=[each.url])
            clients.append(Client(await stack.enter_async_context(exchange), key))
            await clients[-1].register()
        yield Batch(site, clients)


def made(audit: AuditLog, verb: str) -> list[str]:
    """The names of the CertificateRequests that the servers have created or deleted."""
    found = audit.requests(user=SERVER, resource="certificaterequests.cert-manager.io")
    names = [each.name or each.uri for each in found if each.verb == verb and each.status in {200, 201}]
    return [name for name in names if "/" not in name]


def nothing_is_left(site: Installation) -> None:
    eventually(
        lambda: not site.objects("certificaterequests.cert-manager.io", RELEASE),
        seconds=SWEPT,
        why=lambda: site.objects("certificaterequests.cert-manager.io", RELEASE),
    )


@dataclass(frozen=True)
class Issued:
    """What a CA has issued until now."""

    authority: ExternalCA
    openbao: OpenBao
    audit: AuditLog
    before: int

    @classmethod
    def since_now(cls, site: Installation, openbao: OpenBao, authority: ExternalCA) -> Issued:
        before = openbao.certificates_of(authority.mount) if authority.mount else 0
        return cls(authority, openbao, site.cluster.audit(), before)

    def count(self) -> int:
        """The number of certificates since then: OpenBao's own list, and the requests to cert-manager."""
        if self.authority.mount:
            return self.openbao.certificates_of(self.authority.mount) - self.before
        return len(set(made(self.audit, "create")))


@pytest.mark.requirement("X60", "X40", "X24", "X25")
async def test_every_order_gets_one_certificate_when_one_of_two_servers_is_killed(
    site: Installation, servers: tuple[Server, Server], authority: ExternalCA, openbao: OpenBao
) -> None:
    victim = servers[1]
    async with batch(site, servers, authority) as orders:
        await orders.prove(ORDERS, f"killed-{authority.name}")
        issued = Issued.since_now(site, openbao, authority)
        killing: list[asyncio.Future[None]] = []

        def kill(begun: int) -> None:
            if begun == ORDERS // 2:
                killing.append(asyncio.get_running_loop().run_in_executor(None, victim.kill))

        try:
            await orders.finalize(meanwhile=kill)
            await asyncio.gather(*killing)
            certificates = await orders.certificates()
        finally:
            victim.start()
            await asyncio.to_thread(victim.wait_until_ready, STARTED)
    assert killing
    assert len({each.leaf.serial_number for each in certificates}) == ORDERS
    found = issued.count()
    print(f"{authority.kind}: {ORDERS} orders, {found} certificates")
    if authority.kind == "vault":
        # What OpenBao has signed for the dead server when it died, nobody has; another server has asked again.
        assert ORDERS <= found <= ORDERS + AT_ONCE
        listed = openbao.request("LIST", f"{authority.mount}/certs")["data"]["keys"]
        assert {each.leaf.serial_number for each in certificates} <= {
            int(each.replace(":", "").replace("-", ""), 16) for each in listed
        }
    else:
        assert found == ORDERS
    nothing_is_left(site)


@pytest.mark.requirement("X37", "X40")
async def test_an_openbao_that_is_sealed_costs_no_order(
    site: Installation, servers: tuple[Server, Server], authorities: dict[str, ExternalCA], openbao: OpenBao
) -> None:
    async with batch(site, servers, authorities["vault"]) as orders:
        await orders.prove(FEW, "sealed")
        issued = Issued.since_now(site, openbao, authorities["vault"])
        openbao.seal()
        try:
            await orders.finalize()
            assert {(await orders.steady.order(each.url)).status for each, _ in orders.orders} == {"processing"}
            await asyncio.sleep(AWAY)
        finally:
            openbao.unseal()
        certificates = await orders.certificates()
    assert len({each.leaf.serial_number for each in certificates}) == issued.count() == FEW


@pytest.mark.requirement("X37", "X40")
async def test_a_webhook_of_cert_manager_that_is_down_costs_no_order(
    site: Installation, servers: tuple[Server, Server], authorities: dict[str, ExternalCA], openbao: OpenBao
) -> None:
    async with batch(site, servers, authorities["certManager"]) as orders:
        await orders.prove(FEW, "unhooked")
        issued = Issued.since_now(site, openbao, authorities["certManager"])
        urls = await asyncio.to_thread(point_webhooks, site, f"https://{LOOPBACK}:{free_port()}")
        try:
            await orders.finalize()
            assert {(await orders.steady.order(each.url)).status for each, _ in orders.orders} == {"processing"}
            await asyncio.sleep(AWAY)
        finally:
            await asyncio.to_thread(point_webhooks, site, urls)
        certificates = await orders.certificates()
    assert len({each.leaf.serial_number for each in certificates}) == issued.count() == FEW
    nothing_is_left(site)


def point_webhooks(site: Installation, server: str) -> str:
    """Let the API server look for cert-manager's webhook there; where it was before."""
    before = ""
    for kind, path in WEBHOOKS:
        where = "/webhooks/0/clientConfig/url"
        found = json.loads(site.cluster.kubectl("get", kind, "cert-manager-webhook", "--output=json"))
        before = found["webhooks"][0]["clientConfig"]["url"].rpartition("/")[0]
        patch = json.dumps([{"op": "replace", "path": where, "value": f"{server}/{path}"}])
        site.cluster.kubectl("patch", kind, "cert-manager-webhook", "--type=json", f"--patch={patch}")
    return before


@pytest.mark.requirement("X37", "X40")
async def test_an_api_server_that_is_away_costs_no_order(
    site: Installation, servers: tuple[Server, Server], authority: ExternalCA, openbao: OpenBao
) -> None:
    async with batch(site, servers, authority) as orders:
        await orders.prove(FEW, f"away-{authority.name}")
        issued = Issued.since_now(site, openbao, authority)
        sent = asyncio.create_task(orders.finalize())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await asyncio.to_thread(site.cluster.stop_apiserver)
        try:
            await asyncio.sleep(AWAY)
        finally:
            await asyncio.to_thread(site.cluster.start_apiserver)
            for each in (*servers, site.programs.operator):
                await asyncio.to_thread(each.wait_until_ready)
        away = time.monotonic() - began
        await sent
        certificates = await orders.certificates()
    assert len({each.leaf.serial_number for each in certificates}) == FEW
    # On a busy machine the API server may start so late that claims have ended: the other server has then asked again.
    most = FEW if authority.kind != "vault" or away < Pace().claimed else 2 * FEW
    assert FEW <= issued.count() <= most
    nothing_is_left(site)


@pytest.mark.requirement("X63")
async def test_an_order_costs_at_most_two_or_three_more_writes(site: Installation, authority: ExternalCA) -> None:
    """The cheapest of three: one that a busy machine holds up for five seconds is told to people, by a write."""
    audit, found = site.cluster.audit(), []
    async with site.client(authority.enrollment) as client:
        await client.obtain([f"warm.{ZONE}"], site.answerer.add)
        for number in range(3):
            await asyncio.to_thread(nothing_is_left, site)
            audit.mark()
            await client.obtain([f"cost-{number}-{authority.name}.{ZONE}"], site.answerer.add)
            await asyncio.to_thread(nothing_is_left, site)
            found.append(writes(audit))
    expected = Counter({"create acmeorders": 1, "update acmeorders/status": 3})
    if authority.kind == "certManager":
        expected += Counter({"create certificaterequests": 1, "delete certificaterequests": 1})
    assert min(found, key=Counter.total) == expected


def writes(audit: AuditLog) -> Counter[str]:
    """What the servers have written, without their leases."""
    counts: Counter[str] = Counter()
    for each, count in audit.counts(user=SERVER).items():
        if each.verb in WRITES and not each.resource.startswith("leases"):
            subresource = f"/{each.subresource}" if each.subresource else ""
            counts[f"{each.verb} {each.resource.partition('.')[0]}{subresource}"] += count
    return counts
