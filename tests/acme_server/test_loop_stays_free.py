"""SEC41: the worst that clients can send, and for how long nobody else is served meanwhile.

What an input costs is measured in CPU of the loop's thread: the figures are the same on a machine that is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache

import idna
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from acme_server.orders.admission import MAXIMUM_NAME_CHARACTERS
from kms.pki.csr import MAXIMUM_REQUEST
from kms.resources.policies import DNSNameRules, PolicySpec
from tests.support import pki
from tests.support.acme import ClientKey, b64, signed
from tests.support.loops import MeasuredLoop
from tests.support.processor import slowness
from tests.support.server import Answer, Server, running_server

LONGEST = 0.02
TIMES = 3
"""Each input comes again and again: the least of what it took is what it takes."""

pytestmark = pytest.mark.requirement("SEC41")


@cache
def rsa_key() -> RSAPrivateKey:
    return generate_private_key(65537, 4096)


def international(letter: str) -> str:
    """A label that takes as long to check as labels can: 50 times the letter, and so 56 to 60 octets."""
    return idna.alabel(letter * 50).decode()


def tlv(tag: int, *contents: bytes) -> bytes:
    """DER: tag, length, contents."""
    content = b"".join(contents)
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets) + content


def request_with_a_modulus_of(octets: int) -> bytes:
    """A CSR for a key that nobody has: its modulus is as long as the request may be."""
    sequence, integer, bits, oid = 0x30, 0x02, 0x03, 0x06
    rsa = tlv(sequence, tlv(oid, bytes.fromhex("2a864886f70d010101")), b"\x05\0")
    key = tlv(sequence, tlv(integer, b"\x7f" * octets), tlv(integer, b"\x7f" * 256))
    info = tlv(sequence, tlv(integer, b"\0"), tlv(sequence), tlv(sequence, rsa, tlv(bits, b"\0" + key)), tlv(0xA0))
    algorithm = tlv(sequence, tlv(oid, bytes.fromhex("2a864886f70d01010b")), b"\x05\0")
    return tlv(sequence, info, algorithm, tlv(bits, b"\0" + b"\x01" * 256))


LABELS = ".".join(international(letter) for letter in "\u0431\u3042\u05d0")


async def an_rsa_account_key_and_a_long_payload(server: Server) -> Answer:
    key = ClientKey("PS256", rsa_key())
    members = {"contact": ["mailto:" + "a" * 900 + f"{n}@example.com" for n in range(10)], "x": "y" * 35_000}
    return await server.post(f"{server.base}/new-account", members, key=key, jwk=key.jwk)


async def an_rsa_key_that_fermat_is_asked_about(server: Server) -> Answer:
    jwk = ClientKey("RS256", rsa_key()).jwk | {"n": b64(((1 << 4095) + 2**64 * 12345 + 7).to_bytes(512, "big"))}
    return await server.post(f"{server.base}/new-account", {}, jwk=jwk, alg="RS256")


async def a_signature_that_is_not_good(server: Server) -> Answer:
    key = ClientKey("RS512", rsa_key())
    url = f"{server.base}/new-account"
    body = signed(
        key, b"x" * 40_000, jwk=key.jwk | {"e": b64(b"\xff\xff\xff\xff")}, nonce=server.nonces.issue(), url=url
    )
    return await server.post(url, body=body)


async def a_hundred_names_of_international_labels(server: Server) -> Answer:
    """As many as the limit of their characters allows."""
    names = [f"a{number}.{LABELS}.example.com" for number in range(100)]
    return await server.order(*names[: MAXIMUM_NAME_CHARACTERS // len(names[-1])])


async def very_many_members(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-order", {f"{number}": [number] for number in range(3000)})


async def a_request_of_international_labels(server: Server) -> Answer:
    order = await server.ready()
    return await server.finalize(order, pki.csr(*(f"a{number}.{LABELS}.example.com" for number in range(74))))


async def a_request_for_very_many_names(server: Server) -> Answer:
    order = await server.ready()
    return await server.finalize(order, pki.csr(*(f"n{number}.example.com" for number in range(850))))


async def a_request_with_a_huge_modulus(server: Server) -> Answer:
    order = await server.ready()
    return await server.finalize(order, request_with_a_modulus_of(MAXIMUM_REQUEST - 600))


async def a_certificate_by_an_rsa_ca_for_an_rsa_key(server: Server) -> Answer:
    order = await server.ready(*(f"n{number}.example.com" for number in range(100)))
    names = [each["value"] for each in order.json["identifiers"]]
    return await server.finalize(order, pki.csr(*names, signed_with=rsa_key()))


WORST: list[tuple[Callable[[Server], Awaitable[Answer]], int]] = [
    (an_rsa_account_key_and_a_long_payload, 400),
    (an_rsa_key_that_fermat_is_asked_about, 400),
    (a_signature_that_is_not_good, 400),
    (a_hundred_names_of_international_labels, 201),
    (very_many_members, 400),
    (a_request_of_international_labels, 400),
    (a_request_for_very_many_names, 400),
    (a_request_with_a_huge_modulus, 400),
    (a_certificate_by_an_rsa_ca_for_an_rsa_key, 200),
]


async def hammered(ask: Callable[[Server], Awaitable[Answer]], status: int, loop: MeasuredLoop) -> float:
    """The least of the longest times that the loop was kept for, while this was asked again and again."""
    async with running_server() as server:
        if ask is a_certificate_by_an_rsa_ca_for_an_rsa_key:
            server.world.install_authority(with_key=rsa_key())
        await server.register()
        taken = []
        for _ in range(TIMES):
            loop.longest = 0.0
            answer = await ask(server)
            assert answer.status == status, answer.text
            taken.append(loop.longest)
        return min(taken)


@pytest.mark.parametrize(("ask", "status"), [pytest.param(*each, id=each[0].__name__) for each in WORST])
def test_the_worst_that_clients_can_send_keeps_nobody_waiting(
    ask: Callable[[Server], Awaitable[Answer]], status: int
) -> None:
    loop = MeasuredLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        taken = runner.run(hammered(ask, status, loop))
    assert taken < LONGEST * slowness()


def runs_of_stars(number: int) -> tuple[str, ...]:
    """Patterns as long as the schema admits, whose literal parts are all in the names that are ordered."""
    return tuple("**." * 60 + f"*{each // 100}*{each // 10 % 10}*{each % 10}*z" for each in range(number))


@pytest.mark.requirement("SEC74")
@pytest.mark.parametrize(
    ("patterns", "status"),
    [pytest.param(runs_of_stars(500), 503, id="500-patterns"), pytest.param(runs_of_stars(6), 403, id="6-patterns")],
)
def test_the_patterns_of_a_tenant_keep_nobody_waiting(patterns: tuple[str, ...], status: int) -> None:
    async def order_names() -> float:
        async with running_server() as server:
            await server.register()
            server.world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=patterns)))
            taken = []
            for _ in range(TIMES):
                loop.longest = 0.0
                answer = await server.order(
                    *("z." + "a." * 80 + "0123456789" * 4 + f"y{number}" for number in range(39))
                )
                assert answer.status == status, answer.text
                taken.append(loop.longest)
            return min(taken)

    loop = MeasuredLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        taken = runner.run(order_names())
    assert taken < LONGEST * slowness()
