"""Several processes in one container."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from acme_server.jose.decoding import base64url
from acme_server.settings import WORKER_PORTS, ServerSettings
from acme_server.siblings import Siblings
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.load.exchange import Exchange
from e2e.load.keys import AccountKey
from kms.address import Address
from kms.cluster.client import Cluster
from kms.connections import ConnectionLimits
from kms.resources.core import Secret
from kms.resources.kinds import AUTHORITIES, POLICIES, PROFILES, SECRETS
from kms.resources.meta import ObjectMeta
from kms.resources.secret_names import (
    COMPONENT,
    NONCE_KEY,
    NONCE_SECRET,
    SERVICE_NAME,
    SERVING_CERTIFICATE,
    TLS_CERTIFICATE,
    TLS_PRIVATE_KEY,
    nonce_secret_name,
    serving_secret_name,
)
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.domain import NAMESPACE, PROFILE, RELEASE, World
from tests.support.eventually import in_background, until

SETTINGS = ServerSettings(
    external_url="https://acme.example.com",
    namespace="kms-acme",
    metrics_listen=Address("", 9090),
    connections=ConnectionLimits(maximum=2048, per_address=3),
    workers=3,
)
LIMIT = 60.0


def test_each_worker_has_a_port_of_its_own_and_all_together_the_connections_of_one_server() -> None:
    workers = [SETTINGS.of_worker(number) for number in range(3)]
    assert [each.metrics_listen.port for each in workers] == [9090, 9100, 9110]
    assert {(each.connections.maximum, each.connections.share) for each in workers} == {(683, 1)}
    addresses = tuple(Address("127.0.0.1", port) for port in (9090, 9100, 9110))
    assert {each.worker_addresses() for each in workers} == {addresses}
    assert {(each.listen, each.http_listen) for each in workers} == {(SETTINGS.listen, SETTINGS.http_listen)}


def test_one_worker_knows_no_others() -> None:
    assert ServerSettings(external_url="https://a", namespace="b").worker_addresses() == ()


SCRIPT = """
import os, select, signal, sys, time
from pathlib import Path
from acme_server.settings import ServerSettings
from acme_server.workers import run_workers
from kms import stop_signals

folder, stubborn = Path(sys.argv[1]), sys.argv[2] == "stubborn"
terminate = lambda: os.kill(os.getpid(), signal.SIGTERM)
if sys.argv[2] in ("parent", "child"):
    os.register_at_fork(**{f"after_in_{sys.argv[2]}": terminate})

def work(settings, parent):
    reading, writing = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: None if stubborn else os.write(writing, b"x"))
    (folder / f"worker-{settings.worker}").write_text(str(os.getpid()))
    with stop_signals.unblocked():
        while not select.select([reading, parent], [], [])[0]:
            pass
    (folder / f"ended-{settings.worker}").touch()
    return 0

settings = ServerSettings(external_url="https://a", namespace="b", workers=2)
sys.exit(run_workers(settings, run_worker=work, grace=0.3))
"""


@contextmanager
def supervised(folder: Path, kind: str = "") -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Two workers, and their process ids."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), kind]) as process:
        try:
            pids = [int(_content(folder / f"worker-{number}")) for number in range(2)]
            yield process, pids
        finally:
            process.kill()


def _content(file: Path) -> str:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if file.exists() and (text := file.read_text()):
            return text
        time.sleep(0.01)
    raise TimeoutError(file)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_workers_are_told_to_end_and_are_waited_for(tmp_path: Path) -> None:
    with supervised(tmp_path) as (process, pids):
        process.terminate()
        assert process.wait(LIMIT) == 0
        assert sorted(each.name for each in tmp_path.glob("ended-*")) == ["ended-0", "ended-1"]
        assert not any(map(_exists, pids))


def test_when_a_worker_dies_the_container_ends_with_an_error_also_if_another_one_does_not_end(tmp_path: Path) -> None:
    with supervised(tmp_path, "stubborn") as (process, pids):
        os.kill(pids[0], signal.SIGKILL)
        assert process.wait(LIMIT) == 1
        assert not _exists(pids[1])


async def test_workers_do_not_outlive_the_process_that_started_them(tmp_path: Path) -> None:
    with supervised(tmp_path) as (process, _):
        process.kill()
        await until(lambda: len(list(tmp_path.glob("ended-*"))) == 2)


@pytest.mark.parametrize(("kind", "exit_code"), [("parent", 0), ("child", 1)])
def test_a_signal_between_the_fork_and_the_handlers_ends_all_workers_in_good_order(
    tmp_path: Path, kind: str, exit_code: int
) -> None:
    with supervised(tmp_path, kind) as (process, pids):
        assert process.wait(LIMIT) == exit_code, "only a signal to the container asks it to end"
        assert sorted(each.name for each in tmp_path.glob("ended-*")) == ["ended-0", "ended-1"]
        assert not any(map(_exists, pids))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_while_the_program_is_imported_is_not_lost(tmp_path: Path, workers: int) -> None:
    script = """
import os, signal, sys
from kms_acme.cli.main import main

class Signal:
    def find_spec(self, name, path, target=None):
        if name == "acme_server.main":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Signal())
main(["server", "--external-url=https://a", "--namespace=b", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0",
      f"--workers={sys.argv[1]}", f"--token-directory={sys.argv[2]}"])
"""
    command = [sys.executable, "-c", script, str(workers), str(tmp_path)]
    assert subprocess.run(command, timeout=LIMIT, check=False).returncode == 0


def test_if_a_worker_cannot_start_the_others_end(tmp_path: Path) -> None:
    script = SCRIPT.replace(
        "settings = ",
        """
fork, forks = os.fork, []

def failing():
    forks.append(1)
    if len(forks) == 2:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = failing
settings = """,
    )
    command = [sys.executable, "-c", script, str(tmp_path), ""]
    assert subprocess.run(command, timeout=LIMIT, check=False).returncode == 1
    assert [each.name for each in tmp_path.glob("ended-*")] == ["ended-0"]


@pytest.mark.parametrize("destination", ["-", "audit.log"])
def test_long_lines_of_several_workers_do_not_mix(tmp_path: Path, destination: str) -> None:
    """An order has up to a hundred names, and its line in the audit stream 25 kB; a pipe takes 4 kB at once."""
    script = """
import json, logging, sys
from acme_server.audit.stream import open_stream
from acme_server.settings import ServerSettings
from acme_server.workers import run_workers
from kms import logs

def work(settings, parent):
    handler = open_stream(sys.argv[1], turns=settings.turns)
    for number in range(200):
        line = json.dumps({"names": [str(settings.worker)] * (5_000 if number % 2 else 3)})
        handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))
        logging.getLogger("x").warning("line", extra={"names": str(settings.worker) * 9_000})
    return 0

logs.configure("json", "info")
run_workers(ServerSettings(external_url="https://a", namespace="b", workers=3), run_worker=work)
"""
    command = [sys.executable, "-c", script, destination]
    done = subprocess.run(command, timeout=LIMIT, check=False, capture_output=True, cwd=tmp_path)
    audit = done.stdout if destination == "-" else (tmp_path / destination).read_bytes()
    written = [json.loads(each)["names"] for each in audit.splitlines()]
    assert len(written) == 600
    assert all(len(set(each)) == 1 for each in written)
    logged = [json.loads(each) for each in done.stderr.splitlines()]
    assert sum(each["event"] == "line" and len(set(each["names"])) == 1 for each in logged) == 600


@asynccontextmanager
async def answering(status: list[int]) -> AsyncIterator[Address]:
    """A worker whose /readyz answers with the last of these statuses."""

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=status[-1])

    application = web.Application()
    application.router.add_get("/readyz", ready)
    server = TestServer(application)
    await server.start_server()
    try:
        yield Address(LOOPBACK, int(server.port or 0))
    finally:
        await server.close()


async def test_a_worker_is_ready_when_it_says_so_and_the_container_is_alive_while_it_answers() -> None:
    status = [503]
    async with aiohttp.ClientSession() as session, answering(status) as address:
        siblings = Siblings([address], session=session, every=0.01, patience=0.2)
        (holds,) = siblings.conditions.values()
        assert siblings.alive()
        await asyncio.sleep(0.3)
        assert not siblings.alive()
        async with in_background(siblings.run()):
            await until(siblings.alive)
            assert not holds()
            status.append(200)
            await until(holds)
            status.append(503)
            await until(lambda: not holds())
            assert siblings.alive()


def _ports() -> int:
    """A free port for metrics with another one for the second worker."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.create_server((LOOPBACK, port + WORKER_PORTS)):
            return port


async def test_two_workers_share_an_address_and_accept_nonces_of_each_other(tmp_path: Path) -> None:
    async with running_api() as api, AsyncExitStack() as stack:
        authority, port, metrics = trustme.CA(), free_port(), _ports()
        _fill(api, await api.cluster(), authority)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kms_acme", "server", "--workers=2", f"--external-url=https://{LOOPBACK}:{port}",
            f"--namespace={RELEASE}", f"--kubeconfig={api.write_kubeconfig(tmp_path / 'kubeconfig')}",
            f"--listen={LOOPBACK}:{port}", f"--http-listen={LOOPBACK}:{free_port()}",
            f"--metrics-listen={LOOPBACK}:{metrics}",
        )  # fmt: skip
        stack.callback(_kill, process)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        await _ready(http, metrics)
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        url = f"https://{LOOPBACK}:{port}/acme/{NAMESPACE}/{PROFILE}/directory"
        exchanges: dict[bytes, Exchange] = {}
        for _ in range(64):  # the kernel chooses the worker of each connection
            exchange = await stack.enter_async_context(Exchange(url, tls=trust))
            exchanges[base64url(await exchange.new_nonce("GET"), "nonce")[:6]] = exchange
            if len(exchanges) == 2:
                break
        first, second = exchanges.values()
        account_url = (await first.directory())["newAccount"]
        for one, other in ((first, second), (second, first)):
            nonce = await one.new_nonce("GET")
            payload = {"termsOfServiceAgreed": True}
            answers = [
                await other.signed(account_url, payload, key=AccountKey.generate(), nonce=nonce) for _ in range(2)
            ]
            assert [each.status for each in answers] == [201, 400]
            assert answers[1].problem_type == "badNonce"
        process.terminate()
        async with asyncio.timeout(LIMIT):
            assert await process.wait() == 0


def _fill(api: FakeApiServer, cluster: Cluster, authority: trustme.CA) -> None:
    """A profile, and the Secrets of the server."""
    world = World(api, cluster)
    world.configure()
    world.install_authority()
    for profile in world.profiles.values():
        api.put(PROFILES, profile)
    for policy in world.policies.values():
        api.put(POLICIES, policy)
    for ca in world.authorities.values():
        api.put(AUTHORITIES, ca)
    issued = authority.issue_cert(LOOPBACK)
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    for name, component, data in (
        (nonce_secret_name(SERVICE_NAME), NONCE_KEY, {NONCE_SECRET: b"n" * 32}),
        (
            serving_secret_name(SERVICE_NAME),
            SERVING_CERTIFICATE,
            {TLS_CERTIFICATE: chain, TLS_PRIVATE_KEY: issued.private_key_pem.bytes()},
        ),
    ):
        meta = ObjectMeta(name=name, namespace=RELEASE, labels={COMPONENT: component})
        api.put(SECRETS, Secret(metadata=meta, type="Opaque", data=data))


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _ready(http: aiohttp.ClientSession, port: int) -> None:
    """Wait until the first worker answers that all are ready."""
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(aiohttp.ClientError):
                async with http.get(f"http://{LOOPBACK}:{port}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
