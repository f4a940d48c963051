"""The whole ACME server on a fake API server, and a client that signs any request.

Only the cluster, the watches of the caches and the network of validations are stand-ins.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import BaseTestServer, TestClient
from cryptography import x509

from acme_server.api.application import acme_application
from acme_server.api.context import Context
from acme_server.api.readiness import Readiness
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.replicas import Replicas
from acme_server.state.account_keys import account_name
from acme_server.urls import URLs
from kms.clock import system_entropy
from kms.resources.accounts import AccountSpec, AccountState, AccountStatus, ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import LocalRef, ObjectMeta
from tests.support import pki
from tests.support.acme import EXTERNAL_URL, ClientKey, b64, signed
from tests.support.domain import NAMESPACE, World, running_world

ERROR = "urn:ietf:params:acme:error:"


@dataclass(frozen=True)
class Answer:
    """An answer: its status, headers and body."""

    status: int
    headers: Mapping[str, str]
    urls: tuple[str, ...]
    text: str

    @property
    def json(self) -> dict[str, Any]:
        """The JSON body."""
        document: dict[str, Any] = json.loads(self.text)
        return document

    @property
    def location(self) -> str:
        """The Location header."""
        return self.headers["Location"]

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document with a short type."""
        assert self.headers["Content-Type"] == "application/problem+json", self.text
        document = self.json
        assert document["status"] == self.status
        assert document["type"].startswith(ERROR)
        return document | {"type": document["type"].removeprefix(ERROR)}

    def without_nonce(self) -> tuple[int, dict[str, str], str]:
        """What two requests that are refused alike have in common."""
        headers = {name: value for name, value in self.headers.items() if name not in {"Replay-Nonce", "Date"}}
        return self.status, headers, self.text


@dataclass
class Server:
    """A replica, and a client with one key."""

    world: World
    http: TestClient[Any, Any]
    nonces: Nonces
    context: Context
    key: ClientKey = field(default_factory=ClientKey)
    kid: str | None = None

    @property
    def metrics(self) -> Metrics:
        """Its metrics."""
        return self.context.metrics

    @property
    def readiness(self) -> Readiness:
        """Whether it can serve."""
        return self.context.readiness

    @property
    def base(self) -> str:
        """The prefix of the profile's URLs."""
        return URLs(EXTERNAL_URL).profile("pki", "web")

    async def post(
        self,
        url: str,
        payload: Any = None,
        /,
        *,
        key: ClientKey | None = None,
        body: bytes | None = None,
        at: Server | None = None,
        **header: Any,
    ) -> Answer:
        """Send a signed request, a POST-as-GET without a payload. The header may replace the account's kid.

        `at` is another replica for the request.
        """
        if "kid" not in header and "jwk" not in header:
            header["kid"] = self.kid
        url = url if url.startswith(EXTERNAL_URL) else EXTERNAL_URL + url
        header = {"nonce": self.nonces.issue() if self.nonces.ready else "none", "url": url} | header
        data = b"" if payload is None else payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        response = await (at or self).http.post(
            url.removeprefix(EXTERNAL_URL),
            data=signed(key or self.key, data, **header) if body is None else body,
            headers={"Content-Type": "application/jose+json"},
        )
        return await _answer(response)

    async def get(self, url: str, method: str = "GET", **headers: str) -> Answer:
        """A request that is not signed."""
        return await _answer(await self.http.request(method, url.removeprefix(EXTERNAL_URL), headers=headers))

    def opened(self, key: ClientKey | None = None, profile: str = "web", state: AccountState | None = "valid") -> str:
        """The kid of an account in that state, which the API server has and this replica has not seen."""
        public = (key or self.key).public
        account = ACMEAccount(
            metadata=ObjectMeta(name=account_name(NAMESPACE, profile, public.thumbprint), namespace=NAMESPACE),
            spec=AccountSpec(profile_ref=LocalRef(name=profile), key=public.jwk, thumbprint=public.thumbprint),
            status=AccountStatus(state=state),
        )
        return URLs(EXTERNAL_URL).account(self.world.api.put(ACCOUNTS, account))

    async def register(self, key: ClientKey | None = None, **members: Any) -> Answer:
        """Open an account for a key. For the client's own key, the client uses this account from then on."""
        chosen = key or self.key
        answer = await self.post(f"{self.base}/new-account", members, key=chosen, jwk=chosen.jwk)
        if answer.status in {200, 201} and chosen is self.key:
            self.kid = answer.location
        return answer

    async def order(self, *names: str, **members: Any) -> Answer:
        """Create an order for these DNS names."""
        identifiers = [{"type": "dns", "value": name} for name in names or ("www.example.com",)]
        return await self.post(f"{self.base}/new-order", {"identifiers": identifiers, **members})

    async def ready(self, *names: str, **members: Any) -> Answer:
        """Create an order and validate it until it is ready."""
        order = await self.order(*names, **members)
        for url in order.json["authorizations"]:
            challenge = (await self.post(url)).json["challenges"][0]
            await self.post(challenge["url"], {})
        ready = await self.post(order.location)
        assert ready.json["status"] == "ready", ready.text
        return ready

    async def finalize(self, order: Answer, request: bytes | None = None, *, at: Server | None = None) -> Answer:
        """Send a CSR, by default one for exactly the names of the order."""
        names = [each["value"] for each in order.json["identifiers"]]
        request = pki.csr(*names) if request is None else request
        return await self.post(order.json["finalize"], {"csr": b64(request)}, at=at)

    async def certificate(self, order: Answer) -> x509.Certificate:
        """Download the certificate of a valid order."""
        assert order.json["status"] == "valid", order.text
        chain = await self.post(order.json["certificate"])
        return x509.load_pem_x509_certificate(chain.text.encode())


def client_of(server: web.Server) -> TestClient[Any, Any]:
    """A client of one of the low-level servers that the program runs."""
    return TestClient(_LowLevelServer(server))


class _LowLevelServer(BaseTestServer):
    def __init__(self, server: web.Server) -> None:
        super().__init__()
        self._server = server

    async def _make_runner(self, **_: Any) -> web.ServerRunner:
        return web.ServerRunner(self._server, shutdown_timeout=0.1)


async def _answer(response: ClientResponse) -> Answer:
    return Answer(response.status, response.headers, tuple(response.headers.getall("Link", ())), await response.text())


@asynccontextmanager
async def running_replica(world: World, nonces: Nonces, *, body_deadline: float = 10.0) -> AsyncIterator[Server]:
    """Run the HTTP edge for the services of a world; replicas with the same `nonces` share them."""
    context = Context.build(
        urls=URLs(EXTERNAL_URL),
        nonces=nonces,
        replicas=Replicas(nonces=nonces, slices=None, session=None, clock=world.clock, entropy=system_entropy),
        services=world.services,
        metrics=Metrics(),
        readiness=Readiness(),
        audit=world.audit,
        list_profiles=world.list_profiles,
        body_deadline=body_deadline,
    )
    async with client_of(acme_application(context)) as http:
        yield Server(world, http, nonces, context)


@asynccontextmanager
async def running_server(
    configure: Callable[[World], None] | None = None, *, body_deadline: float = 10.0
) -> AsyncIterator[Server]:
    """Run a server with the profile `web`, without EAB, for names below example.com."""
    async with running_world(configure) as world:
        nonces = Nonces(clock=world.clock, entropy=system_entropy)
        nonces.use(b"n" * 32)
        async with running_replica(world, nonces, body_deadline=body_deadline) as server:
            yield server
