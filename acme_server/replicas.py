"""The other replicas: a nonce is redeemed by the replica that issued it, wherever the request arrives.

Replicas find each other through the EndpointSlices of a Service and talk plain HTTP on the port that /metrics is served
on. Every message carries a MAC under a key derived from the nonce key. A question also carries the time and a random
number, and the answer's MAC covers the question's, so neither can be made up or used again: repeating a question only
learns that the nonce has been used.

A replica that is gone, or does not answer within a second, redeems nothing: the client gets badNonce and a new nonce.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Collection
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import web
from josepy.json_util import encode_b64jose
from yarl import URL

from acme_server.nonces import Nonce, Nonces
from acme_server.problems import Refused, Unavailable
from kms.address import Address
from kms.clock import Clock, Entropy
from kms.resources.core import EndpointSlice

logger = logging.getLogger(__name__)

PATH = "/peers/nonces"
PORT_NAME = "peers"
"""The port of the Service by which replicas reach each other; a Service with one port may call it what it likes."""
MAC = "X-Kms-Acme-Mac"

_PURPOSE = b"peers"
_CLOCK_SKEW = 60
_DEADLINE = aiohttp.ClientTimeout(total=1)
_LOOK_AROUND = 2.0
"""Seconds between two looks at the EndpointSlices, and the least time between two rounds of asking who is who."""
_MAXIMUM_ANSWER = 1024
_GONE_FOR = 60
"""Seconds for which a replica that has left the EndpointSlices still counts: it may be finishing requests."""


class Slices(Protocol):
    """The EndpointSlices of the Service, as an informer holds them."""

    def values(self) -> Collection[EndpointSlice]:
        """All of them, as they were seen last."""
        ...


class Question(msgspec.Struct, frozen=True):
    """Who are you, and (where there is one) is this nonce good?"""

    time: int
    random: str
    nonce: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Which replica this is, and whether it has redeemed the nonce."""

    replica: str
    redeemed: bool = False


class Replicas:
    """Asks the other replicas, and answers them."""

    def __init__(
        self,
        *,
        nonces: Nonces,
        slices: Slices | None,
        session: aiohttp.ClientSession | None,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Without `slices` and `session` there are no others."""
        self._nonces = nonces
        self._slices = slices
        self._session = session
        self._clock = clock
        self._entropy = entropy
        self._replicas: dict[Address, str] = {}
        self._last_round = float("-inf")
        # Nobody has been seen yet, so anybody may be there: a server with a Service is not alone in its first minute.
        self._last_seen = asyncio.get_running_loop().time()
        self._asking = asyncio.Lock()

    @property
    def replica(self) -> str:
        """The identity of this replica in this life."""
        return self._nonces.replica

    def is_sole_writer(self) -> bool:
        """Whether no other replica can have changed anything in the last minute.

        An address that has not said who it is counts as another replica.
        """
        if self._slices is None:
            return True
        now = asyncio.get_running_loop().time()
        if any(self._replicas.get(address) != self.replica for address in self._addresses()):
            self._last_seen = now
        return self._last_seen + _GONE_FOR < now

    async def redeem(self, nonce: Nonce) -> bool:
        """Use up a nonce at the replica that issued it. False where it is used, expired, or nobody can tell."""
        if nonce.replica == self.replica:
            return self._nonces.redeem(nonce)
        address = self._address_of(nonce.replica)
        if address is None:
            await self._ask_around()
            address = self._address_of(nonce.replica)
        if address is None:
            return False
        answer = await self._ask(address, nonce.text)
        return answer is not None and answer.replica == nonce.replica and answer.redeemed

    async def look_around(self) -> None:
        """Keep the list of replicas current, so that nothing else need ask first. Runs until it is cancelled."""
        while self._slices is not None:
            addresses = self._addresses()
            self._replicas = {each: replica for each, replica in self._replicas.items() if each in addresses}
            if self._nonces.ready and addresses - self._replicas.keys():
                await self._ask_around()
            await asyncio.sleep(_LOOK_AROUND)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer another replica. Whoever does not know the key gets 403 and learns nothing."""
        if not self._nonces.ready:
            raise web.HTTPServiceUnavailable
        body = await request.read()
        key = self._nonces.derived_key(_PURPOSE)
        mac = _mac(key, body)
        if not hmac.compare_digest(mac.encode(), request.headers.get(MAC, "").encode(errors="replace")):
            raise web.HTTPForbidden
        question = msgspec.json.decode(body, type=Question)
        if abs(question.time - self._clock().timestamp()) > _CLOCK_SKEW:
            raise web.HTTPForbidden
        reply = msgspec.json.encode(Answer(self.replica, self._redeemed(question.nonce)))
        return web.Response(body=reply, content_type="application/json", headers={MAC: _mac(key, mac.encode() + reply)})

    def _redeemed(self, text: str) -> bool:
        try:
            return bool(text) and self._nonces.redeem(self._nonces.read(text))
        except Refused:
            return False

    def _addresses(self) -> set[Address]:
        slices = self._slices.values() if self._slices is not None else ()
        return {
            Address(address, port)
            for each in slices
            if (port := _port_of(each)) is not None
            for endpoint in each.endpoints
            for address in endpoint.addresses
        }

    def _address_of(self, replica: str) -> Address | None:
        return next((address for address, each in self._replicas.items() if each == replica), None)

    async def _ask_around(self) -> None:
        """Ask every address who it is. At most one round at a time and every two seconds, however many nonces come."""
        async with self._asking:
            loop = asyncio.get_running_loop()
            if loop.time() < self._last_round + _LOOK_AROUND:
                return
            self._last_round = loop.time()
            addresses = list(self._addresses())
            answers = await asyncio.gather(*(self._ask(address) for address in addresses))
            self._replicas = {
                address: answer.replica for address, answer in zip(addresses, answers, strict=True) if answer
            }

    async def _ask(self, address: Address, nonce: str = "") -> Answer | None:
        if self._session is None:
            return None
        key = self._nonces.derived_key(_PURPOSE)
        question = Question(int(self._clock().timestamp()), encode_b64jose(self._entropy(16)), nonce)
        body = msgspec.json.encode(question)
        mac = _mac(key, body)
        url = URL.build(scheme="http", host=address.host, port=address.port, path=PATH)
        try:
            async with self._session.post(
                url, data=body, headers={MAC: mac}, timeout=_DEADLINE, allow_redirects=False
            ) as response:
                reply = await response.content.read(_MAXIMUM_ANSWER)
                given = response.headers.get(MAC, "").encode(errors="replace")
            if not hmac.compare_digest(_mac(key, mac.encode() + reply).encode(), given):
                raise ValueError("the answer is not signed with our key")  # noqa: TRY301 - one place tells of it
            return msgspec.json.decode(reply, type=Answer)
        except (aiohttp.ClientError, TimeoutError, ValueError, Unavailable) as error:
            logger.warning(
                "peer did not answer", extra={"peer": f"{address.host}:{address.port}", "error": repr(error)}
            )
            return None


def _port_of(endpoints: EndpointSlice) -> int | None:
    named = next((each.port for each in endpoints.ports if each.name == PORT_NAME), None)
    return named or (endpoints.ports[0].port if len(endpoints.ports) == 1 else None)


def _mac(key: bytes, message: bytes) -> str:
    return encode_b64jose(hmac.digest(key, message, "sha256"))
