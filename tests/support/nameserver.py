"""A DNS server on a free port of 127.0.0.1 over UDP and TCP, with answers from the test, also hostile ones."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from kms.address import Address


class NameServer(asyncio.DatagramProtocol):
    """Answers from `records`: {(name, "A"): ["10.0.0.1"]}; `rcodes` overrides by name, `asked` has the questions."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.rcodes: dict[str, str] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.edns_unknown: str | None = None
        """The response code for queries with EDNS, as a server answers that does not know it: with the header alone."""
        self.truncate_udp = False
        self.truncate_tcp = False
        self.hang_up = False
        """Close TCP connections in the middle of the answer."""
        self.mute = False
        self.queries: list[tuple[dns.message.Message, tuple[str, int]]] = []
        """The UDP messages and their senders."""
        self.mangle: Callable[[bytes], bytes | list[bytes]] | None = None
        """Replaces a UDP answer by other bytes or several datagrams."""
        self.mangle_tcp: Callable[[bytes], bytes] | None = None
        self.delays: dict[str, float] = {}
        """Delay of answers by name, in seconds."""
        self.rotate: dict[tuple[str, str], list[list[str]]] = {}
        """Consecutive answers, for DNS rebinding with TTL 0; the last one repeats."""
        self.address = Address("127.0.0.1", 0)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not by isinstance: the selector loop's transport is none by inheritance.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        query = dns.message.from_wire(data)
        self.queries.append((query, addr))
        if self.mute:
            return
        reply = self.reply(query, "udp")
        if self.truncate_udp:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        wire = reply.to_wire(max_size=65535)
        sent = self.mangle(wire) if self.mangle else wire
        delay = self.delays.get(self.asked[-1][0], 0.0)
        for each in sent if isinstance(sent, list) else [sent]:
            asyncio.get_running_loop().call_later(delay, self._transport.sendto, each, addr)

    def reply(self, query: dns.message.Message, transport: str) -> dns.message.Message:
        name = query.question[0].name.to_text().rstrip(".").lower()
        type_ = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((name, type_, transport))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if self.edns_unknown is not None and query.edns >= 0:
            reply.use_edns(False)
            reply.question.clear()
            reply.set_rcode(dns.rcode.from_text(self.edns_unknown))
            return reply
        if name in self.rcodes:
            reply.set_rcode(dns.rcode.from_text(self.rcodes[name]))
            return reply
        self._answer(reply, name, type_)
        if not reply.answer and not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

    def _answer(self, reply: dns.message.Message, name: str, type_: str) -> None:
        for _ in range(30):
            if turns := self.rotate.get((name, type_)):
                turn = turns.pop(0) if len(turns) > 1 else turns[0]
                reply.answer.append(dns.rrset.from_text(f"{name}.", 0, "IN", type_, *turn))
                return
            if values := self.records.get((name, type_)):
                reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", type_, *values))
                return
            aliases = self.records.get((name, "CNAME")) or self._renamed(reply, name)
            if not aliases:
                return
            if ("unsynthesized", name) not in self.records:
                reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", f"{aliases[0]}."))
            if ("unchased", name) in self.records:
                return
            name = aliases[0]

    def _renamed(self, reply: dns.message.Message, name: str) -> list[str]:
        """The target of a DNAME above the name."""
        for (owner, type_), values in self.records.items():
            if type_ == "DNAME" and name.endswith(f".{owner}"):
                reply.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", "DNAME", f"{values[0]}."))
                return [name.removesuffix(owner) + values[0]]
        return []

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        reply = self.reply(dns.message.from_wire(await reader.readexactly(length)), "tcp")
        if self.truncate_tcp:
            reply.flags |= dns.flags.TC
        wire = reply.to_wire(max_size=65535)
        wire = self.mangle_tcp(wire) if self.mangle_tcp else wire
        writer.write(struct.pack("!H", len(wire)) + (wire[:5] if self.hang_up else wire))
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def running_nameserver() -> AsyncIterator[NameServer]:
    """A name server that listens on the same port by UDP and TCP."""
    loop = asyncio.get_running_loop()
    server = NameServer()
    tcp = await asyncio.start_server(server.serve_tcp, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", port))
    server.address = Address("127.0.0.1", port)
    try:
        yield server
    finally:
        transport.close()
        tcp.close()
        await tcp.wait_closed()
