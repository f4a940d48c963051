"""SEC71: which groups our TLS takes, and what a handshake costs the event loop.

Costs are CPU time of the thread: the figures are the same on a machine that is busy.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
import uvloop

from acme_server.api.tls import ServingCertificate
from acme_server.validation.net.tls_client import unverified_context
from kms.tls_groups import CLIENT_GROUPS, restrict_key_exchange
from tests.support.alpn import certificate, serving
from tests.support.client_hello import FINITE_FIELDS, GROUPS, client_hello
from tests.support.eventually import until
from tests.support.listening import CA, listening
from tests.support.processor import slowness

LONGEST = 0.005
"""Seconds."""
TIMES = 5
"""Each is done again and again: the least of what it took is what it takes."""
HANDSHAKE = b"\x16"
"""The type of a record with a ServerHello."""

pytestmark = pytest.mark.requirement("SEC71")


async def exchange(port: int, hello: bytes) -> tuple[bool, float]:
    """Whether a ServerHello is the answer (else an alert, or nothing), and the seconds of CPU that both sides took."""
    started = time.thread_time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(hello)
    answer = await reader.read(5)
    cost = time.thread_time() - started
    writer.close()
    await writer.wait_closed()
    return answer[:1] == HANDSHAKE, cost


@pytest.mark.parametrize("group", GROUPS)
def test_the_listener_takes_two_elliptic_curves_and_no_offer_costs_more_than_five_milliseconds(group: str) -> None:
    async def offer() -> None:
        async with listening() as server:
            answers = [await exchange(server.port, client_hello(group)) for _ in range(TIMES)]
            assert {taken for taken, _ in answers} == {group in ("X25519", "P-256")}
            assert min(cost for _, cost in answers) < LONGEST * slowness()
            await until(lambda: server.listener.count() == 0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(offer())


async def test_a_replayed_client_hello_costs_no_more_than_an_honest_handshake() -> None:
    async with listening() as server:
        hello = client_hello("P-256")
        replayed, honest = [], []
        for _ in range(TIMES):
            replayed.append((await exchange(server.port, hello))[1])
            started = time.thread_time()
            _, writer = await server.connect()
            honest.append(time.thread_time() - started)
            writer.close()
        assert min(replayed) < min(honest)


def test_with_tls_1_2_keys_are_exchanged_with_elliptic_curves_alone() -> None:
    for context in ServingCertificate().context, unverified_context():
        assert {each["kea"] for each in context.get_ciphers()} == {"kx-ecdhe", "kx-any"}  # any: those of TLS 1.3


OFFER = """
import ssl, sys
from acme_server.api.tls import ServingCertificate
from tests.support.client_hello import client_hello

certificate = ServingCertificate()
certificate.load(open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read(), source="x")
plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
plain.load_cert_chain(sys.argv[1], sys.argv[2])
for context in plain, certificate.context:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(client_hello("ffdhe2048"))
    try:
        context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        print("accepted")
    except ssl.SSLError:
        print("refused")
"""


def test_the_groups_are_ours_where_openssl_is_configured_with_others(tmp_path: Path) -> None:
    issued = CA.issue_cert("127.0.0.1")
    chain, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(
        "openssl_conf = x\n[x]\nssl_conf = y\n[y]\nsystem_default = z\n[z]\nGroups = ffdhe2048:ffdhe8192\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", OFFER, str(chain), str(key)],
        env=os.environ | {"OPENSSL_CONF": str(configuration)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.split() == ["accepted", "refused"]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, float]:
    """A handshake in memory, and the seconds of CPU that the client took. Raises SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving_side = server.wrap_bio(up, down, server_side=True)
    asking_side = client.wrap_bio(down, up, server_hostname="web.example.com")
    cost, done = 0.0, set[ssl.SSLObject]()
    while len(done) < 2:
        for side in asking_side, serving_side:
            started = time.thread_time()
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
            cost += time.thread_time() - started if side is asking_side else 0
    return asking_side, cost


@pytest.mark.parametrize("group", FINITE_FIELDS)
def test_a_server_that_is_validated_cannot_choose_a_finite_field(group: str) -> None:
    server = serving(certificate([], None), protocols=())
    restrict_key_exchange(server, group)
    with pytest.raises(ssl.SSLError):
        handshake(server, unverified_context())


@pytest.mark.parametrize("group", CLIENT_GROUPS.split(":"))
def test_a_server_that_is_validated_may_know_a_single_curve(group: str) -> None:
    server = serving(certificate([], None), protocols=())
    restrict_key_exchange(server, group)
    assert min(handshake(server, unverified_context())[1] for _ in range(TIMES)) < 0.02 * slowness()


def test_what_this_openssl_does_not_know_leaves_p_256() -> None:
    server = serving(certificate([], None), protocols=())
    restrict_key_exchange(server, "X25519:no-such-group")
    for group in "X25519", "P-256":
        client = unverified_context()
        restrict_key_exchange(client, group)
        if group == "P-256":
            handshake(server, client)
        else:
            with pytest.raises(ssl.SSLError):
                handshake(server, client)


def test_newer_versions_of_python_set_the_groups_themselves() -> None:
    class Newer(ssl.SSLContext):
        groups: ClassVar[list[str]] = []

        def set_groups(self, groups: str) -> None:
            self.groups.append(groups)

    restrict_key_exchange(Newer(ssl.PROTOCOL_TLS_SERVER), "P-256")
    assert Newer.groups == ["P-256"]
