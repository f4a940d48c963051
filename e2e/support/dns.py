"""A DNS server for tests and the demo. It is authoritative for one zone and can send hostile answers.

    zone = Zone("demo.test", default=Addresses("127.0.0.1"))
    zone.set("rebinding.demo.test", Addresses("127.0.0.1"), Addresses("169.254.169.254"))
    zone.set("demo.test", Records("CAA", '0 issue "pki.demo.test"'))
    zone.publish("_acme-challenge.demo.test", "a text")
    with serving(zone) as address: ...

Command line: `python -m e2e.support.dns --zone demo.test --address 127.0.0.1 --port 5353`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import click
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset

from e2e.support.dnsanswers import Addresses as Addresses
from e2e.support.dnsanswers import Alias as Alias
from e2e.support.dnsanswers import Answer as Answer
from e2e.support.dnsanswers import Failure as Failure
from e2e.support.dnsanswers import Records as Records
from e2e.support.dnsanswers import Several as Several
from e2e.support.dnsanswers import Silence as Silence
from e2e.support.threads import in_thread

_UDP_SIZE = 512
_TCP_IDLE_LIMIT = 30.0
_ATTEMPTS = 10
_QUERIES_KEPT = 10_000


class Query(NamedTuple):
    """A query: the name as the client sent it, without the final dot; the type as text."""

    name: str
    type: str
    transport: str


@dataclass
class Zone:
    """The names of one zone; thread-safe."""

    origin: str
    default: Answer = field(default_factory=lambda: Addresses("127.0.0.1"))
    """The answer for all other names in the zone."""
    queries: deque[Query] = field(default_factory=lambda: deque(maxlen=_QUERIES_KEPT))
    """The last queries, including unanswered ones."""

    def __post_init__(self) -> None:
        self._origin = dns.name.from_text(self.origin)
        self._answers: dict[dns.name.Name, tuple[Answer, ...]] = {}
        self._asked: dict[tuple[dns.name.Name, int], int] = {}
        self._texts: dict[dns.name.Name, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def set(self, name: str, *answers: Answer) -> None:
        """Set the answers for a name: each query of a type gets the next answer; the last answer repeats.

        Without answers, the name gets the default again.
        """
        key = dns.name.from_text(name)
        with self._lock:
            self._asked = {asked: count for asked, count in self._asked.items() if asked[0] != key}
            self._answers.pop(key, None)
            if answers:
                self._answers[key] = answers

    def publish(self, name: str, text: str) -> None:
        """Add a TXT record to a name, as a DNS provider does for a client.

        Published records answer all TXT queries for the name and affect no other type.
        """
        key = dns.name.from_text(name)
        with self._lock:
            self._texts[key] = (*self._texts.get(key, ()), text)

    def published(self, name: str) -> tuple[str, ...]:
        """The published TXT records of a name."""
        with self._lock:
            return self._texts.get(dns.name.from_text(name), ())

    def withdraw(self, name: str, text: str) -> None:
        """Remove a published TXT record, if it exists."""
        key = dns.name.from_text(name)
        with self._lock:
            if left := tuple(each for each in self._texts.get(key, ()) if each != text):
                self._texts[key] = left
            else:
                self._texts.pop(key, None)

    def answer(self, question: dns.rrset.RRset) -> Answer:
        """The answer for the next query of this name and type."""
        if not question.name.is_subdomain(self._origin):
            return Failure("REFUSED")
        with self._lock:
            if question.rdtype == dns.rdatatype.TXT and (texts := self._texts.get(question.name)):
                return Records("TXT", *(f'"{each}"' for each in texts))
            answers = self._answers.get(question.name, (self.default,))
            asked = self._asked.get((question.name, question.rdtype), 0)
            self._asked[question.name, question.rdtype] = asked + 1
        return answers[min(asked, len(answers) - 1)]


class Responder:
    """Answers DNS messages in wire format."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    async def respond(self, wire: bytes, *, transport: str) -> bytes | None:
        """The response, or None for a message that is no query, and for the answer Silence."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if len(query.question) != 1 or query.flags & dns.flags.QR:
            return None
        question = query.question[0]
        self._zone.queries.append(
            Query(question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype), transport)
        )
        answer = self._zone.answer(question)
        await asyncio.sleep(answer.delay)
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AA
        if not answer.fill(response, question):
            return None
        limit = max(query.payload, _UDP_SIZE) if transport == "udp" else 0xFFFF
        return response.to_wire(max_size=limit, prefer_truncation=True)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override] # it is one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        for each in self._tasks:
            each.cancel()

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        response = await self._responder.respond(data, transport="udp")
        if response is not None:
            self._transport.sendto(response, addr)


class _Streams:
    """DNS over TCP: each message follows its length in two bytes (RFC 1035, 4.2.2)."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._open: set[asyncio.StreamWriter] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while True:
                await self._one(reader, writer)
        self._open.discard(writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_TCP_IDLE_LIMIT):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            wire = await reader.readexactly(length)
        response = await self._responder.respond(wire, transport="tcp")
        if response is not None:
            writer.write(struct.pack("!H", len(response)) + response)
            await writer.drain()

    def abort(self) -> None:
        for each in self._open:
            each.transport.abort()


@asynccontextmanager
async def listening(zone: Zone, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve a zone over UDP and TCP on one port (0: a free one); yields "host:port".

    Raises:
        OSError: the port is taken.
    """
    responder = Responder(zone)
    datagrams, streams = _sockets(host, port)
    loop = asyncio.get_running_loop()
    over_udp, over_tcp = _Datagrams(responder), _Streams(responder)
    transport, _ = await loop.create_datagram_endpoint(lambda: over_udp, sock=datagrams)
    server = await asyncio.start_server(over_tcp.connected, sock=streams)
    try:
        yield f"{host}:{streams.getsockname()[1]}"
    finally:
        server.close()
        over_tcp.abort()
        over_udp.cancel()
        transport.close()
        await asyncio.sleep(0)  # the loop releases closed transports in its next iteration


def serving(zone: Zone, *, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[str]:
    """Serve in a thread, for synchronous code."""
    return in_thread(listening(zone, host=host, port=port), name="dns")


def _sockets(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Bind a UDP and a TCP socket to the same port; retry if a free port is taken for one of them."""
    for attempt in range(1, _ATTEMPTS + 1):
        datagrams, streams = _bound(host, port, socket.SOCK_DGRAM), None
        try:
            streams = _bound(host, datagrams.getsockname()[1], socket.SOCK_STREAM)
        except OSError:
            if port or attempt == _ATTEMPTS:
                raise
        else:
            return datagrams, streams
        finally:
            if streams is None:
                datagrams.close()
    raise AssertionError("the last attempt returns or raises")


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


def _checked_address(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise click.BadParameter(f"{value} is not an IP address") from None
    return values


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--zone", "origin", required=True, help="Zone to serve, such as demo.test.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    default=["127.0.0.1"],
    show_default=True,
    callback=_checked_address,
    help="IPv4 or IPv6 address of all names. Repeatable.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="UDP and TCP port. Default: a free one.")
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address to listen on.")
def main(origin: str, addresses: tuple[str, ...], port: int, listen: str) -> None:
    """Run a DNS server for one zone. Every name in it has the same addresses."""
    zone = Zone(origin, default=Addresses(*addresses))

    async def serve() -> None:
        async with listening(zone, host=listen, port=port) as address:
            click.echo(f"Serving *.{origin} = {', '.join(addresses)} on {address}")
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except OSError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main(prog_name="python -m e2e.support.dns")
