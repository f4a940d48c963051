from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.connector import Connector
from acme_server.validation.net.tls_client import MAXIMUM_HANDSHAKE, unverified_context
from acme_server.validation.tlsalpn01 import TLSALPN01, server_name
from kms.resources.orders import Identifier
from tests.support.alpn import OBSOLETE, certificate, digest_of, flooding, running_responder, serving
from tests.support.nameserver import NameServer
from tests.support.processor import slowness

NAME = "web.example.com"
DNS = Identifier(type="dns", value=NAME)
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDf"
KEY_AUTHORIZATION = f"{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
DIGEST = digest_of(KEY_AUTHORIZATION)
HONEST = certificate([x509.DNSName(NAME)], DIGEST)
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def validator(nameserver: NameServer, port: int, *, deadline: float = 5.0, connect: float = 2.0) -> TLSALPN01:
    connector = Connector(
        resolver=Resolver((nameserver.address,), timeout=2.0),
        addresses=AddressFilter(ValidationSettings(allow=LOOPBACK)),
        timeout=connect,
    )
    return TLSALPN01(connector, port=port, deadline=deadline)


async def failure(nameserver: NameServer, port: int, identifier: Identifier = DNS, **limits: Any) -> ValidationFailed:
    with pytest.raises(ValidationFailed) as caught:
        await validator(nameserver, port, **limits)(identifier, TOKEN, KEY_AUTHORIZATION)
    return caught.value


async def failure_of(nameserver: NameServer, context: ssl.SSLContext) -> ValidationFailed:
    async with running_responder(context) as responder:
        return await failure(nameserver, responder.port)


async def failure_with(nameserver: NameServer, handler: Handler, **limits: Any) -> ValidationFailed:
    tasks: list[asyncio.Task[Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with suppress(OSError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.transport.abort()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        failed = await failure(nameserver, server.sockets[0].getsockname()[1], **limits)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)
    return failed


@pytest.mark.requirement("ALPN-M2", "ALPN-M3", "ALPN-M4", "SEC48")
async def test_a_handshake_with_the_right_certificate_proves_control(nameserver: NameServer) -> None:
    async with running_responder(serving(HONEST)) as responder:
        await validator(nameserver, responder.port)(DNS, TOKEN, KEY_AUTHORIZATION)
    assert responder.asked == [NAME]


@pytest.mark.requirement("ALPN-M8", "SEC48")
async def test_nothing_is_said_after_the_handshake_and_the_connection_is_closed(nameserver: NameServer) -> None:
    async with running_responder(serving(HONEST)) as responder:
        await validator(nameserver, responder.port)(DNS, TOKEN, KEY_AUTHORIZATION)
        async with asyncio.timeout(5):
            await responder.ended.wait()
    assert responder.told == b""


@pytest.mark.requirement("IP-M2", "IP-M4")
@pytest.mark.parametrize(
    ("address", "asked"),
    [("127.0.0.1", "1.0.0.127.in-addr.arpa"), ("::1", "1." + "0." * 31 + "ip6.arpa")],
)
async def test_an_address_is_asked_for_by_its_reverse_name_and_not_resolved(
    nameserver: NameServer, address: str, asked: str
) -> None:
    presented = certificate([x509.IPAddress(ip_address(address))], DIGEST)
    async with running_responder(serving(presented), host=address) as responder:
        identifier = Identifier(type="ip", value=address)
        await validator(nameserver, responder.port)(identifier, TOKEN, KEY_AUTHORIZATION)
    assert responder.asked == [asked]
    assert nameserver.asked == []


def test_the_name_of_a_handshake_is_the_a_label_of_the_identifier() -> None:
    assert server_name(Identifier(type="dns", value="xn--bcher-kva.example")) == "xn--bcher-kva.example"
    assert server_name(Identifier(type="ip", value="fd00::1")) == "1." + "0." * 29 + "d.f.ip6.arpa"


@pytest.mark.requirement("ALPN-M3", "ALPN-M9", "SEC48")
@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
async def test_another_protocol_or_none_proves_nothing(nameserver: NameServer, protocols: tuple[str, ...]) -> None:
    # Such a server has never heard of the challenge; it must not prove anything even with the right certificate.
    failed = await failure_of(nameserver, serving(HONEST, protocols=protocols))
    assert failed.problem.type == ProblemType.UNAUTHORIZED
    assert failed.problem.detail.startswith(f"{NAME} (127.0.0.1) port ")
    assert "did not select the protocol acme-tls/1" in failed.problem.detail
    assert failed.temporary


async def test_a_server_that_refuses_the_protocol_is_a_tls_problem(nameserver: NameServer) -> None:
    async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(b"\x15\x03\x03\x00\x02\x02\x78")  # fatal, no_application_protocol, as Go sends it
        await writer.drain()
        writer.close()

    failed = await failure_with(nameserver, alert)
    assert failed.problem.type == ProblemType.TLS
    assert "the server does not support the protocol offered by ALPN" in failed.problem.detail
    assert failed.temporary


@pytest.mark.requirement("ALPN-M5", "SEC48")
async def test_a_server_with_an_older_tls_is_refused(nameserver: NameServer) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\xc0\x13" + b"\x00"  # a ServerHello of TLS 1.1
        writer.write(b"\x16\x03\x02" + (len(hello) + 4).to_bytes(2, "big") + b"\x02\x00\x00" + bytes((len(hello),)))
        writer.write(hello)
        await writer.drain()
        await reader.read()
        writer.close()

    failed = await failure_with(nameserver, old)
    assert failed.problem.type == ProblemType.TLS
    assert "does not support TLS 1.2 or newer" in failed.problem.detail


@pytest.mark.requirement("ALPN-M5", "SEC48")
async def test_tls_1_2_is_new_enough(nameserver: NameServer) -> None:
    context = serving(HONEST)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with running_responder(context) as responder:
        await validator(nameserver, responder.port)(DNS, TOKEN, KEY_AUTHORIZATION)


@pytest.mark.requirement("ALPN-M9", "SEC46", "SEC48")
@pytest.mark.parametrize(
    ("presented", "complaint"),
    [
        (certificate([x509.DNSName("secret.example.com")], DIGEST), "does not have the identifier"),
        (certificate([x509.DNSName(NAME), x509.DNSName("secret.example.com")], DIGEST), "exactly one"),
        (certificate([x509.DNSName(NAME)], DIGEST, critical=False), "not critical"),
        (certificate([x509.DNSName(NAME)], DIGEST, oid=OBSOLETE), "obsolete draft"),
        (certificate([x509.DNSName(NAME)], digest_of("another")), "not the digest"),
        (certificate([x509.DNSName(f"{number}.example.com") for number in range(1000)], DIGEST), "longer than"),
    ],
)
async def test_a_wrong_certificate_is_told_and_not_repeated(
    nameserver: NameServer, presented: x509.Certificate, complaint: str
) -> None:
    failed = await failure_of(nameserver, serving(presented))
    assert failed.problem.type == ProblemType.UNAUTHORIZED
    assert failed.problem.detail.startswith(f"The certificate of {NAME} (127.0.0.1) port ")
    assert complaint in failed.problem.detail
    assert "secret" not in failed.problem.detail


@pytest.mark.requirement("SEC41", "SEC48")
async def test_a_chain_without_an_end_is_cut(nameserver: NameServer) -> None:
    failed = await failure_of(nameserver, serving(*[HONEST] * 200))
    assert failed.problem.type == ProblemType.TLS
    assert "the server sent too much" in failed.problem.detail


@pytest.mark.requirement("ALPN-M9")
async def test_what_is_no_tls_is_told(nameserver: NameServer) -> None:
    async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 secret\r\n\r\n")
        await writer.drain()
        writer.close()

    failed = await failure_with(nameserver, http)
    assert failed.problem.type == ProblemType.TLS
    assert failed.problem.detail.endswith("failed: the server did not answer with TLS.")


async def test_a_server_that_hangs_up_is_told(nameserver: NameServer) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    failed = await failure_with(nameserver, hang_up)
    assert failed.problem.type in {ProblemType.TLS, ProblemType.CONNECTION}
    assert failed.temporary


@pytest.mark.parametrize("endless", [b"", b"\x16\x03\x03\x00\x01\x02", b"\x14\x03\x03\x00\x01\x01"])
async def test_a_handshake_without_an_end_is_given_up(nameserver: NameServer, endless: bytes) -> None:
    """A server that says nothing, drips the bytes of a message, or sends records that mean nothing."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(endless)
            await writer.drain()
            await asyncio.sleep(0.02)

    begun = time.monotonic()
    failed = await failure_with(nameserver, drip, connect=0.3, deadline=1.0)
    assert time.monotonic() - begun < 15
    assert failed.problem.type in {ProblemType.CONNECTION, ProblemType.TLS}


@pytest.mark.requirement("SEC45")
async def test_everything_together_has_a_deadline(nameserver: NameServer) -> None:
    nameserver.mute = True
    failed = await failure(nameserver, 443, deadline=0.1)
    assert failed.problem.type == ProblemType.CONNECTION
    assert failed.problem.detail == f"The TLS handshake with {NAME} took longer than 0.1 seconds."


@pytest.mark.requirement("SEC48")
async def test_data_after_the_handshake_is_not_read(nameserver: NameServer) -> None:
    async with flooding(serving(HONEST)) as port:
        await validator(nameserver, port)(DNS, TOKEN, KEY_AUTHORIZATION)


@pytest.mark.requirement("ALPN-M9")
async def test_a_refused_connection_names_address_and_port(nameserver: NameServer) -> None:
    async with running_responder(serving(HONEST)) as responder:
        port = responder.port
    failed = await failure(nameserver, port)
    assert failed.problem.type == ProblemType.CONNECTION
    assert failed.problem.detail == f"Connecting to {NAME} failed: 127.0.0.1 port {port}: connection refused."
    assert failed.temporary


@pytest.mark.requirement("SEC43")
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "100.100.100.200"])
async def test_denied_addresses_are_not_contacted(nameserver: NameServer, address: str) -> None:
    nameserver.records[NAME, "A"] = [address]
    settings = ValidationSettings(resolvers=(nameserver.address,))
    for identifier in (DNS, Identifier(type="ip", value=address)):
        with pytest.raises(ValidationFailed, match="has no address that may be contacted") as caught:
            await TLSALPN01.build(settings)(identifier, TOKEN, KEY_AUTHORIZATION)
        assert caught.value.problem.type == ProblemType.CONNECTION
        assert not caught.value.temporary


@pytest.mark.requirement("SEC41")
def test_no_handshake_uses_the_groups_of_finite_fields() -> None:
    assert not [
        each["name"] for each in unverified_context().get_ciphers() if each["name"].startswith(("DHE", "ADH", "AES"))
    ]


async def test_the_settings_make_a_validator(nameserver: NameServer) -> None:
    async with running_responder(serving(HONEST)) as responder:
        settings = ValidationSettings(resolvers=(nameserver.address,), tls_alpn01_port=responder.port, allow=LOOPBACK)
        await TLSALPN01.build(settings)(DNS, TOKEN, KEY_AUTHORIZATION)


@pytest.mark.requirement("SEC41")
def test_the_most_laborious_handshake_is_done_in_a_moment() -> None:
    chain = [HONEST] * (MAXIMUM_HANDSHAKE // len(HONEST.public_bytes(Encoding.DER)) - 2)
    # The best of several: what else the machine does takes time, and is no work of the handshake.
    assert min(handshake_seconds(chain) for _ in range(5)) < 0.05 * slowness()


def handshake_seconds(chain: Sequence[x509.Certificate]) -> float:
    """The CPU time that a client spends on the server's flight with that chain."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = unverified_context("acme-tls/1").wrap_bio(to_client, to_server, server_hostname=NAME)
    server = serving(*chain).wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert to_client.pending > 0.9 * MAXIMUM_HANDSHAKE
    begun = time.thread_time()
    client.do_handshake()
    return time.thread_time() - begun
