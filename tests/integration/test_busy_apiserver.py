"""The API server has too much to do, and refuses some of what it is asked: the server asks again, clients need not."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from e2e.cluster.kubeconfig import Endpoint
from e2e.cluster.ports import LOOPBACK
from e2e.support.apiproxy import Proxy, Refusal, serving
from e2e.support.programs import Server
from tests.support.installation import Installation
from tests.support.retrying import ordered

CLIENTS, ORDERS = 6, 6
"""How many there are at once, and how many orders each of them makes."""
SHARE = 0.2
REFUSALS = Refusal(429, retry_after=1), Refusal(503, retry_after=1)
PATIENCE = 120.0


@dataclass(frozen=True)
class Refused:
    """A server, and the proxy through which alone it reaches the API server."""

    server: Server
    proxy: Proxy


@pytest.fixture
def refused(installation: Installation, chance: random.Random, tmp_path: Path) -> Iterator[Refused]:
    authority, cluster = trustme.CA(), installation.cluster
    issued = authority.issue_cert(LOOPBACK)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "proxy.crt")
    issued.private_key_pem.write_to_path(tmp_path / "proxy.key")
    (tmp_path / "api.crt").write_bytes(cluster.endpoint.ca_certificate)
    proxy = Proxy(cluster.endpoint.server, trust=tmp_path / "api.crt", chance=chance.random)
    with serving(proxy, certificate=tmp_path / "proxy.crt", key=tmp_path / "proxy.key") as port:
        api = Endpoint(f"https://{LOOPBACK}:{port}", authority.cert_pem.bytes())
        server = installation.programs.add_server(api=api)
        try:
            server.wait_until_ready()
            yield Refused(server, proxy)
        finally:
            proxy.refuse()
            installation.programs.remove_server(server)


async def test_clients_hear_next_to_nothing_of_requests_that_are_refused(
    installation: Installation, refused: Refused, team: str
) -> None:
    enrollment, met = installation.open_profile(team), Counter[str]()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(installation.client(enrollment, servers=[refused.server.url]))
            for _ in range(CLIENTS)
        ]

        async def ordering(number: int) -> list[tuple[str, str]]:
            names = (f"c{number}-{each}.test" for each in range(ORDERS))
            return [await ordered(clients[number], name, installation.answerer.add, met) for name in names]

        refused.proxy.refuse(*REFUSALS, share=SHARE)
        async with asyncio.timeout(PATIENCE):
            obtained = dict(itertools.chain(*await asyncio.gather(*map(ordering, range(CLIENTS)))))
        refused.proxy.refuse()
    print(f"refused: {dict(refused.proxy.refused)}; met by clients: {dict(met)}")
    assert refused.proxy.refused.total() > CLIENTS
    assert met.total() <= refused.proxy.refused.total() / 5
    assert installation.certificates(team) == {url.rpartition("/")[2]: chain for url, chain in obtained.items()}
    assert repeats(refused.server) > CLIENTS


def repeats(server: Server) -> float:
    """How many requests the server says that it has sent again."""
    metrics = server.get("/metrics")[1].splitlines()
    return sum(float(each.rpartition(" ")[2]) for each in metrics if each.startswith("kms_acme_api_repeats_total{"))
