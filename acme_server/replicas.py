"""The other replicas: a nonce is redeemed by the replica that issued it, wherever the request arrives.

Replicas find each other through the EndpointSlices of a Service and talk plain HTTP on the port of /metrics. Every
message carries a MAC under a key derived from the nonce key. A question also carries the time and a random number, and
the MAC of the answer covers that of the question: neither can be forged or replayed. A replayed question reveals
only that the nonce has been used. A question names a nonce by its number, so a reader cannot use the nonce.

A replica that has ended, or does not answer within a second, redeems nothing: the client gets badNonce and a new nonce.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Annotated

import aiohttp
import msgspec
from aiohttp import web
from josepy.json_util import encode_b64jose
from yarl import URL

from acme_server.nonces import Nonce, Nonces
from acme_server.problems import Refused, Unavailable
from kms.address import Address
from kms.clock import Clock, Entropy
from kms.resources.core import Endpoint, EndpointPort, EndpointSlice
from kms.resources.meta import ObjectMeta

logger = logging.getLogger(__name__)

PATH = "/peers/nonces"
PORT_NAME = "peers"
"""The port of the Service that replicas use, and `peers-1` and so on those of further workers in a pod.

A Service with one port may give it any name."""
MAC = "X-Kms-Acme-Mac"

_PURPOSE = b"peers"
_CLOCK_SKEW = 60
_MAXIMUM_ANSWER = 1024


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which replica are you, and (if there is a nonce) is this nonce good?

    A nonce is named by its number and the time of its issue, in seconds. Older replicas, which are there during an
    update, need all of it.
    """

    time: int
    random: str
    nonce: str = ""
    number: Annotated[int, msgspec.Meta(ge=0)] | None = None
    issued: int = 0


class Answer(msgspec.Struct, frozen=True):
    """The identity of the replica, whether it has redeemed the nonce, and what it can do.

    It may know nonces by their number (`by_number`), read what clients have seen (`reads_seen`), and read orders that
    refer to the chain of their certificate (`reads_references`).
    """

    replica: str
    redeemed: bool = False
    by_number: bool = False
    reads_seen: bool = False
    reads_references: bool = False


class Replicas:
    """Asks the other replicas, and answers them.

    `slices` returns the EndpointSlices of the Service. Without `slices` and `session` this replica is the only one.
    In seconds: `deadline` limits the wait for an answer, `every` is the time between two looks at the EndpointSlices,
    and the least time between two rounds of questions. A replica may go on writing for `leaves_after` after it has left
    the EndpointSlices.
    """

    def __init__(
        self,
        *,
        nonces: Nonces,
        slices: Callable[[], Collection[EndpointSlice]] | None,
        session: aiohttp.ClientSession | None,
        clock: Clock,
        entropy: Entropy,
        deadline: float = 1.0,
        every: float = 2.0,
        leaves_after: float = 60.0,
    ) -> None:
        self.replica = nonces.replica
        """The identity of this replica, new with each start."""
        self._nonces = nonces
        self._slices = slices
        self._session = session
        self._clock = clock
        self._entropy = entropy
        self._deadline = aiohttp.ClientTimeout(total=deadline)
        self._every = every
        self._leaves_after = leaves_after
        self._peers: dict[Address, Answer] = {}
        self._last_round = float("-inf")
        # In its first minute a server with a Service cannot know that it is alone: others may have just left.
        self._others_present_at = asyncio.get_running_loop().time()
        self._earlier_present_at = self._others_present_at
        self._round = asyncio.Lock()

    @property
    def identities(self) -> Collection[str]:
        """The identities of the replicas that answered last, this one included."""
        return [each.replica for each in self._peers.values()]

    def is_sole_writer(self) -> bool:
        """Whether no other replica can have written anything in the last minute.

        An address that has not been identified counts as another replica.
        """
        if self._slices is None:
            return True
        now = asyncio.get_running_loop().time()
        if any(self._identity_of(address) != self.replica for address in self._addresses()):
            self._others_present_at = now
        return self._others_present_at + self._leaves_after < now

    def all_read_references(self) -> bool:
        """Whether all replicas of the last minute can read orders that refer to the chain of their certificate.

        An address that has not been identified is one of an earlier release.
        """
        if self._slices is None:
            return True
        now = asyncio.get_running_loop().time()
        peers = (self._peers.get(address) for address in self._addresses())
        if not all(peer is not None and peer.reads_references for peer in peers):
            self._earlier_present_at = now
        return self._earlier_present_at + self._leaves_after < now

    async def redeem(self, nonce: Nonce) -> bool:
        """Use up a nonce at the replica that issued it. False if it is used or expired, or that replica is silent."""
        if nonce.replica == self.replica:
            return self._nonces.redeem(nonce)
        address = self._address_of(nonce.replica)
        if address is None:
            await self._identify()
            address = self._address_of(nonce.replica)
        if address is None:
            return False
        answer = await self._ask(address, nonce)
        return answer is not None and answer.replica == nonce.replica and answer.redeemed

    async def run(self) -> None:
        """Keep the identities current, so that redeeming need not ask first. Runs until it is cancelled."""
        while self._slices is not None:
            self.all_read_references()  # notes replicas of an earlier release that come and go between two orders
            addresses = self._addresses()
            self._know({address: each for address, each in self._peers.items() if address in addresses})
            if self._nonces.ready and addresses - self._peers.keys():
                await self._identify()
            await asyncio.sleep(self._every)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer another replica. A sender without the key gets 403 and learns nothing."""
        if not self._nonces.ready:
            raise web.HTTPServiceUnavailable
        body = await request.read()
        key = self._nonces.derive_key(_PURPOSE)
        question_mac = mac(key, body)
        if not hmac.compare_digest(question_mac.encode(), request.headers.get(MAC, "").encode(errors="replace")):
            raise web.HTTPForbidden
        question = msgspec.json.decode(body, type=Question)
        if abs(question.time - self._clock().timestamp()) > _CLOCK_SKEW:
            raise web.HTTPForbidden
        reply = msgspec.json.encode(
            Answer(self.replica, self._redeem_own(question), by_number=True, reads_seen=True, reads_references=True)
        )
        headers = {MAC: mac(key, question_mac.encode() + reply)}
        return web.Response(body=reply, content_type="application/json", headers=headers)

    def _redeem_own(self, question: Question) -> bool:
        if question.number is not None:
            return self._nonces.redeem(Nonce("", self.replica, question.issued, question.number))
        try:
            return bool(question.nonce) and self._nonces.redeem(self._nonces.read(question.nonce))
        except Refused:
            return False

    def _addresses(self) -> set[Address]:
        slices = self._slices() if self._slices is not None else ()
        return {
            Address(address, port)
            for each in slices
            for port in ports_of(each)
            for endpoint in each.endpoints or ()
            for address in endpoint.addresses
        }

    def _address_of(self, replica: str) -> Address | None:
        return next((address for address, each in self._peers.items() if each.replica == replica), None)

    def _identity_of(self, address: Address) -> str | None:
        peer = self._peers.get(address)
        return None if peer is None else peer.replica

    async def _identify(self) -> None:
        """Ask every address which replica it is: one round at a time, and not more often than `every`."""
        async with self._round:
            loop = asyncio.get_running_loop()
            if loop.time() < self._last_round + self._every:
                return
            self._last_round = loop.time()
            addresses = list(self._addresses())
            answers = await asyncio.gather(*(self._ask(address) for address in addresses))
            self._know({address: answer for address, answer in zip(addresses, answers, strict=True) if answer})

    def _know(self, peers: dict[Address, Answer]) -> None:
        # During an update, a replica of before would refuse nonces that say what their clients have seen.
        self._peers = peers
        self._nonces.carry_seen = len(peers) > 1 and all(each.reads_seen for each in peers.values())

    async def _ask(self, address: Address, nonce: Nonce | None = None) -> Answer | None:
        if self._session is None:
            return None
        key = self._nonces.derive_key(_PURPOSE)
        question = Question(int(self._clock().timestamp()), encode_b64jose(self._entropy(16)))
        if nonce is not None and self._peers[address].by_number:
            question = msgspec.structs.replace(question, number=nonce.number, issued=nonce.issued)
        elif nonce is not None:
            question = msgspec.structs.replace(question, nonce=nonce.text)
        body = msgspec.json.encode(question)
        question_mac = mac(key, body)
        url = URL.build(scheme="http", host=address.host, port=address.port, path=PATH)
        try:
            async with self._session.post(
                url, data=body, headers={MAC: question_mac}, timeout=self._deadline, allow_redirects=False
            ) as response:
                reply = await response.content.read(_MAXIMUM_ANSWER)
                reply_mac = response.headers.get(MAC, "").encode(errors="replace")
            if not hmac.compare_digest(mac(key, question_mac.encode() + reply).encode(), reply_mac):
                raise ValueError("the answer has no valid MAC")  # noqa: TRY301 - one place logs it
            return msgspec.json.decode(reply, type=Answer)
        except (aiohttp.ClientError, TimeoutError, ValueError, Unavailable) as error:
            logger.warning(
                "peer did not answer", extra={"peer": f"{address.host}:{address.port}", "error": repr(error)}
            )
            return None


def ports_of(endpoints: EndpointSlice) -> tuple[int, ...]:
    """The ports named `peers` and, of further workers, `peers-1` and so on; or the only one, whatever its name."""
    ports = endpoints.ports or ()
    named = tuple(each.port for each in ports if each.port and _is_of_replica(each.name or ""))
    return named or tuple(each.port for each in ports if each.port and len(ports) == 1)


def _is_of_replica(name: str) -> bool:
    return name == PORT_NAME or name.startswith(f"{PORT_NAME}-")


def slice_of_workers(addresses: Iterable[Address]) -> tuple[EndpointSlice, ...]:
    """The workers of this container, as EndpointSlices would list them."""
    return tuple(
        EndpointSlice(
            metadata=ObjectMeta(),
            endpoints=(Endpoint(addresses=(each.host,)),),
            ports=(EndpointPort(name=PORT_NAME, port=each.port),),
        )
        for each in addresses
    )


def mac(key: bytes, message: bytes) -> str:
    """The MAC of a message under that key, in base64url."""
    return encode_b64jose(hmac.digest(key, message, "sha256"))
