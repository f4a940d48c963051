import asyncio
import json
import logging
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp
import msgspec
import pytest
import trustme

from acme_server.audit.log import decisions
from acme_server.main import ShutdownTimes, run, serve
from acme_server.settings import ServerSettings, ValidationSettings
from e2e.cluster.ports import free_port
from kms.address import Address
from kms.cluster.errors import Misconfigured
from kms.cluster.service_account_token import hand_over
from kms.connections import ConnectionLimits
from kms.resources import Secret
from kms.resources.authorities import AuthoritySpec, CertificateAuthority
from kms.resources.kinds import AUTHORITIES, LEASES, SECRETS
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
from tests.support.eventually import becomes, eventually, until
from tests.support.flood import silent_connections

NAMESPACE = "kms-acme"


def secret(name: str, component: str, **data: bytes) -> Secret:
    meta = ObjectMeta(name=name, namespace=NAMESPACE, labels={COMPONENT: component})
    return Secret(metadata=meta, data={key.replace("_", "."): value for key, value in data.items()})


def serving_secret(authority: trustme.CA, host: str = "127.0.0.1") -> Secret:
    issued = authority.issue_cert(host)
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    return Secret(
        metadata=ObjectMeta(
            name=serving_secret_name(SERVICE_NAME), namespace=NAMESPACE, labels={COMPONENT: SERVING_CERTIFICATE}
        ),
        type="kubernetes.io/tls",
        data={TLS_CERTIFICATE: chain, TLS_PRIVATE_KEY: issued.private_key_pem.bytes()},
    )


@dataclass
class Running:
    settings: ServerSettings
    api: FakeApiServer
    authority: trustme.CA
    task: asyncio.Task[None]
    stop: asyncio.Event
    http: aiohttp.ClientSession

    async def get(self, path: str, *, internal: bool = False) -> tuple[int, str]:
        port = (self.settings.metrics_listen if internal else self.settings.listen).port
        async with self.http.get(f"{'http' if internal else 'https'}://127.0.0.1:{port}{path}", ssl=self.tls()) as got:
            return got.status, await got.text()

    async def eventually(self, path: str, status: int, *, internal: bool = False) -> str:
        async with asyncio.timeout(10):
            while True:
                try:
                    got = await self.get(path, internal=internal)
                except aiohttp.ClientError:
                    got = (0, "")
                if got[0] == status:
                    return got[1]
                await asyncio.sleep(0.02)

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@asynccontextmanager
async def running(tmp_path: Path, **options: Any) -> AsyncIterator[Running]:
    async with running_api() as api, aiohttp.ClientSession() as http:
        settings = ServerSettings(
            external_url="https://acme.example.com",
            namespace=NAMESPACE,
            listen=Address("127.0.0.1", free_port()),
            http_listen=Address("127.0.0.1", free_port()),
            metrics_listen=Address("127.0.0.1", free_port()),
            kubeconfig=str(api.write_kubeconfig(tmp_path / "kubeconfig")),
            **options,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(serve(settings, stop=stop))
        started = Running(settings, api, trustme.CA(), task, stop, http)
        try:
            yield started
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await task


async def test_it_serves_as_soon_as_there_is_a_certificate_and_is_ready_when_all_is_known(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        text = await server.eventually("/readyz", 503, internal=True)
        assert "serving certificate" in text
        assert await server.eventually("/healthz", 200, internal=True) == "ok\n"
        server.api.put(SECRETS, serving_secret(server.authority))
        assert "nonce key" in await server.eventually("/readyz", 503)
        server.api.put(SECRETS, secret(nonce_secret_name(SERVICE_NAME), NONCE_KEY, **{NONCE_SECRET: b"n" * 32}))
        await server.eventually("/readyz", 200)
        status, text = await server.get("/acme/pki/web/directory")
        assert (status, json.loads(text)["type"]) == (404, "urn:ietf:params:acme:error:malformed")
        metrics = (await server.get("/metrics", internal=True))[1]
        assert 'kms_acme_cache_objects{cache="secrets"} 2.0' in metrics
        assert 'kms_acme_requests_total{method="GET",route="/readyz",status="200"}' in metrics
        assert "\nkms_acme_connections " in metrics


async def test_the_audit_stream_goes_where_the_setting_says(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with running(tmp_path, audit_log=str(path), list_profiles=True) as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        server.api.put(SECRETS, secret(nonce_secret_name(SERVICE_NAME), NONCE_KEY, **{NONCE_SECRET: b"n" * 32}))
        known = CertificateAuthority(metadata=ObjectMeta(namespace="pki", name="known"), spec=AuthoritySpec())
        server.api.put(AUTHORITIES, known)
        await server.eventually("/readyz", 200)

        async def is_leading() -> bool:
            return "\nkms_acme_leading 1.0" in (await server.get("/metrics", internal=True))[1]

        await becomes(is_leading)
        server.api.put(AUTHORITIES, msgspec.structs.replace(known, metadata=ObjectMeta(namespace="pki", name="new")))
        await until(lambda: path.read_text() != "")
        assert "<h2>Profiles</h2>" in (await server.get("/"))[1]
    lines = [json.loads(each) for each in path.read_text().splitlines()]
    assert [(each["decision"], each["by"], each["object"]["name"]) for each in lines] == [
        ("configuration.changed", "administrator", "new")
    ]


async def test_an_audit_stream_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with running(tmp_path, audit_log=str(tmp_path / "none" / "audit.log")):
            await asyncio.sleep(0)


@pytest.mark.requirement("SEC39", "SEC75")
@pytest.mark.parametrize("name", ["listen", "http_listen", "metrics_listen"])
async def test_silent_connections_of_one_address_leave_room_for_others(name: str, tmp_path: Path) -> None:
    async with running(tmp_path, connections=ConnectionLimits(maximum=64)) as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        await server.eventually("/healthz", 200)
        port, share = getattr(server.settings, name).port, 64 if name == "metrics_listen" else 8
        async with silent_connections(port, 80) as left:
            await until(lambda: left() == share)
            assert await server.get("/healthz", internal=name == "metrics_listen") == (200, "ok\n")


async def test_a_nonce_key_of_another_installation_in_the_namespace_is_not_taken(tmp_path: Path) -> None:
    async with running(tmp_path, service_name="shop") as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        server.api.put(SECRETS, secret(nonce_secret_name(SERVICE_NAME), NONCE_KEY, **{NONCE_SECRET: b"n" * 32}))
        await server.eventually("/readyz", 503, internal=True)
        assert "nonce key" in await server.eventually("/readyz", 503)
        server.api.put(SECRETS, secret(nonce_secret_name("shop"), NONCE_KEY, **{NONCE_SECRET: b"s" * 32}))
        await server.eventually("/readyz", 200)


async def test_a_server_that_waits_for_its_token_stops_when_it_is_told_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServerSettings("https://acme.example.com", NAMESPACE, token_directory=tmp_path)
    stop = asyncio.Event()
    with caplog.at_level("INFO"):
        async with asyncio.timeout(10):
            serving = asyncio.create_task(serve(settings, stop=stop))
            await until(lambda: "waiting for a token" in caplog.text)
            stop.set()
            await serving


async def test_a_server_begins_as_soon_as_it_is_handed_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    settings = ServerSettings("https://acme.example.com", NAMESPACE, token_directory=tmp_path)
    with caplog.at_level("INFO"):
        async with asyncio.timeout(10):
            serving = asyncio.create_task(serve(settings, stop=asyncio.Event()))
            await until(lambda: "waiting for a token" in caplog.text)
            hand_over(tmp_path, "token", authority=b"", namespace=NAMESPACE)
            with pytest.raises(Misconfigured):  # this is no pod, but it has gone on
                await serving


async def test_the_lease_is_named_after_the_service_so_that_two_installations_in_a_namespace_elect_apart(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, service_name="shop", peer_service="peers") as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        await until(lambda: server.api.read(LEASES, NAMESPACE, "shop-server"))
        leases = [each.name for each in server.api.requests if each.plural == LEASES.plural]
        assert set(leases) <= {"shop-server", ""}


@pytest.mark.requirement("M147")
@pytest.mark.parametrize(
    ("validation", "warned"),
    [
        (ValidationSettings(), []),
        (ValidationSettings(http01_port=5002), ["--http01-port is for tests only"]),
        (ValidationSettings(tls_alpn01_port=5001), ["--tls-alpn01-port is for tests only"]),
    ],
)
async def test_challenge_ports_that_are_only_for_tests_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, validation: ValidationSettings, warned: list[str]
) -> None:
    async with running(tmp_path, validation=validation) as server:
        await server.eventually("/healthz", 200, internal=True)
    assert [each.getMessage() for each in caplog.records if "tests only" in each.getMessage()] == warned


@pytest.mark.requirement("SEC65")
async def test_a_new_serving_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        await server.eventually("/healthz", 200)
        server.authority = trustme.CA()
        await server.http.connector.close() if server.http.connector else None
        server.http = aiohttp.ClientSession()
        server.api.put(SECRETS, serving_secret(server.authority))
        await server.eventually("/healthz", 200)
        await server.http.close()


@pytest.mark.requirement("SEC65")
async def test_a_certificate_in_files_is_used_instead_of_the_secret(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    files = {"tls_certificate": tmp_path / "tls.crt", "tls_private_key": tmp_path / "tls.key"}
    async with running(tmp_path, **files) as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        server.authority = authority
        await server.eventually("/healthz", 200)


@pytest.mark.requirement("SEC33", "SEC46")
async def test_malformed_http_is_told_in_one_line_that_quotes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with running(tmp_path) as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        await server.eventually("/", 200)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.settings.listen.port, ssl=server.tls())
        writer.write(b"GET / HTTP/1.1\r\nAuthorization: Bearer hunter2" + b"x" * 9000 + b"\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
    (told,) = [each for each in caplog.records if each.getMessage() == "malformed HTTP"]
    assert vars(told)["error"] == "LineTooLong"
    assert told.exc_info is None
    assert "hunter2" not in caplog.text


async def test_a_request_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        await server.eventually("/healthz", 200)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.settings.listen.port, ssl=server.tls(), server_hostname="127.0.0.1"
        )
        writer.write(
            b"POST /acme/pki/web/new-order HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\n"
            b"Content-Length: 2\r\n\r\n"
        )
        await asyncio.sleep(0.1)
        server.stop.set()
        await asyncio.sleep(0.1)
        assert not server.task.done()
        writer.write(b"{}")
        assert b" 404 " in await reader.readline()
        writer.close()


@pytest.mark.requirement("M2", "SEC60")
async def test_without_tls_there_is_what_certificates_point_to_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        server.api.put(SECRETS, serving_secret(server.authority))
        await server.eventually("/readyz", 503)
        plain = f"http://127.0.0.1:{server.settings.http_listen.port}"
        for path in ("/crl/pki/issuing.crl", "/ca/pki/issuing.crt"):
            async with server.http.get(plain + path) as answer:
                assert (answer.status, answer.headers["Server"]) == (404, "kms-acme")
                assert "pki/issuing" in (await answer.json(content_type=None))["detail"]
            assert (await server.get(path))[0] == 404
        for path in ("/", "/healthz", "/readyz", "/metrics", "/acme/pki/web/directory", "/acme/pki/web/new-nonce"):
            async with server.http.get(plain + path) as answer:
                assert answer.status == 404
                assert "Replay-Nonce" not in answer.headers
            async with server.http.post(plain + path, data=b"{}") as answer:
                assert answer.status == 404
                assert not {"Replay-Nonce", "Link"} & answer.headers.keys()
        metrics = (await server.get("/metrics", internal=True))[1]
        assert 'route="/crl/{namespace}/{authority}.crl"' in metrics


async def test_it_ends_though_no_certificate_ever_came(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await server.eventually("/healthz", 200, internal=True)


@pytest.mark.parametrize("kubeconfig", ["missing", "broken"])
def test_without_an_api_server_to_talk_to_it_says_so_and_exits_with_1(
    tmp_path: Path, kubeconfig: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kubeconfig"
    if kubeconfig == "broken":
        path.write_text("{")
    assert run(ServerSettings(external_url="https://x", namespace="x", kubeconfig=str(path))) == 1
    assert "cannot serve" in caplog.text


@pytest.mark.parametrize(("audit_log", "level"), [("-", logging.WARNING), ("", logging.NOTSET)])
def test_what_the_audit_stream_has_is_not_in_the_log_too(tmp_path: Path, audit_log: str, level: int) -> None:
    settings = ServerSettings(
        external_url="https://x", namespace="x", kubeconfig=str(tmp_path / "missing"), audit_log=audit_log
    )
    try:
        assert run(settings) == 1
        assert decisions.level == level
    finally:
        decisions.setLevel(logging.NOTSET)


def test_a_port_that_is_taken_ends_it_with_1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApiServer()
    api.port = 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServerSettings(
            external_url="https://x",
            namespace="x",
            kubeconfig=str(api.write_kubeconfig(tmp_path / "kubeconfig")),
            metrics_listen=Address("127.0.0.1", taken.getsockname()[1]),
        )
        assert run(settings) == 1
    assert "cannot serve" in caplog.text


def is_healthy(metrics: int) -> bool:
    with suppress(OSError), urlopen(f"http://127.0.0.1:{metrics}/healthz") as answer:
        return bool(answer.status == 200)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_the_process_ends_with_0_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    api = FakeApiServer()
    api.port = 1  # nobody is there: the server starts all the same, and waits
    metrics = free_port()
    script = (
        "import sys; from acme_server.main import run; from acme_server.settings import ServerSettings; "
        "from kms.address import Address; sys.exit(run(ServerSettings(external_url='https://x', namespace='x', "
        f"kubeconfig={str(api.write_kubeconfig(tmp_path / 'kubeconfig'))!r}, listen=Address('127.0.0.1', 0), "
        f"metrics_listen=Address('127.0.0.1', {metrics}))))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        try:
            eventually(partial(is_healthy, metrics), seconds=20)
            process.send_signal(number)
            assert process.wait(20) == 0
        finally:
            process.kill()


async def test_secrets_of_others_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        foreign = serving_secret(server.authority)
        elsewhere = msgspec.structs.replace(foreign.metadata, namespace="elsewhere")
        server.api.put(SECRETS, Secret(metadata=elsewhere, type=foreign.type, data=foreign.data))
        server.api.put(SECRETS, secret("other", "signing-key", tls_crt=b"x", tls_key=b"y"))
        await asyncio.sleep(0.1)
        server.api.put(SECRETS, foreign)
        await server.eventually("/healthz", 200)
        server.api.remove(SECRETS, NAMESPACE, serving_secret_name(SERVICE_NAME))
        await asyncio.sleep(0.1)
        await server.eventually("/healthz", 200)


def test_a_shutdown_takes_as_long_as_all_of_its_steps() -> None:
    # Requests get their time twice: to end by themselves, and after they were cancelled.
    times = ShutdownTimes(leaving=1, requests=20, validations=3, plain_requests=400, internal_requests=5_000)
    assert times.longest == 1 + 40 + 3 + 800 + 10_000
    assert ShutdownTimes().longest == 25, "what the chart leaves for it beside drainSeconds"
