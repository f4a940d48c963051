from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from kubernetes.aio.client import Configuration

from kms.cluster.auth import Connection, InPod, Kubeconfig, kubeconfig_path
from kms.cluster.client import Cluster
from kms.cluster.errors import Misconfigured, Unavailable
from kms.resources.kinds import ACCOUNTS
from tests.support.apiserver import FakeApiServer


class Monotonic:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Tokens:
    """A source that hands out one token after the other."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.loads: list[bool] = []

    async def __call__(self, *, anew: bool) -> Configuration:
        self.loads.append(anew)
        if not self.tokens:
            raise Misconfigured("no more tokens")
        return Configuration(host="http://127.0.0.1:1", api_key={"BearerToken": f"Bearer {self.tokens.pop(0)}"})


async def connection(source: Tokens, monotonic: Monotonic) -> Connection:
    return Connection(await source(anew=True), source, monotonic=monotonic)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Callable[..., str]:
    def write(user: dict[str, Any], **cluster: Any) -> str:
        path = tmp_path / "config"
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1/"} | cluster}],
            "users": [{"name": "u", "user": user}],
        }
        path.write_text(json.dumps(config))
        return str(path)

    return write


async def test_a_token_is_loaded_again_after_a_minute_and_not_before() -> None:
    monotonic, source = Monotonic(), Tokens("one", "two")
    connected = await connection(source, monotonic)
    monotonic.now += 59.9
    assert await connected.authorization() == "Bearer one"
    monotonic.now += 0.1
    assert await connected.authorization() == "Bearer two"
    assert source.loads == [True, False]


async def test_a_source_that_fails_leaves_the_old_token_in_use(caplog: pytest.LogCaptureFixture) -> None:
    monotonic = Monotonic()
    connected = await connection(Tokens("one"), monotonic)
    monotonic.now += 60
    assert await connected.authorization() == "Bearer one"
    assert "credentials not reloaded" in caplog.text
    assert "Bearer" not in caplog.text


async def test_a_refused_token_is_renewed_once_however_many_are_refused() -> None:
    source = Tokens("one", "two", "three")
    connected = await connection(source, Monotonic())
    for _ in range(3):
        await connected.renew("Bearer one")
    assert await connected.authorization() == "Bearer two"
    await connected.renew("Bearer two")  # within a second of the last renewal
    assert await connected.authorization() == "Bearer two"


async def test_a_connection_without_a_source_keeps_its_token() -> None:
    connected = Connection(Configuration(host="http://127.0.0.1:1", api_key={"BearerToken": "Bearer x\n"}))
    await connected.renew("Bearer x")
    assert await connected.authorization() == "Bearer x"


def test_a_connection_does_not_show_its_token() -> None:
    connected = Connection(Configuration(host="http://127.0.0.1:1", api_key={"BearerToken": "Bearer secret"}))
    assert repr(connected) == "Connection(http://127.0.0.1:1)"


async def test_after_a_401_the_call_is_made_again_with_a_new_token(api: FakeApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    path = api.write_kubeconfig(tmp_path / "config", user={"tokenFile": "token"})
    cluster = await Cluster.connect(kubeconfig=str(path))
    token.write_text("new\n")
    api.tokens = {"new"}
    await cluster.list(ACCOUNTS)
    assert [each.verb for each in api.requests] == ["list", "list"]
    await cluster.close()


async def test_a_401_that_stays_is_unavailable_and_says_nothing_of_the_token(api: FakeApiServer) -> None:
    cluster = await api.cluster()
    api.tokens = set()
    with pytest.raises(Unavailable, match=r"^Unauthorized$"):
        await cluster.list(ACCOUNTS)
    assert len(api.requests) == 1


async def test_a_kubeconfig_gives_host_token_and_tls(kubeconfig: Callable[..., str]) -> None:
    connected = await Connection.load(kubeconfig=kubeconfig({"token": "t"}))
    assert connected.host == "https://127.0.0.1:1"
    assert await connected.authorization() == "Bearer t"
    assert connected.tls is not None
    assert connected.tls.verify_mode == ssl.CERT_REQUIRED
    assert connected.tls.check_hostname


async def test_a_kubeconfig_gives_server_name_and_proxy(kubeconfig: Callable[..., str]) -> None:
    path = kubeconfig({}, **{"tls-server-name": "kubernetes", "proxy-url": "http://127.0.0.1:3128"})
    connected = await Connection.load(kubeconfig=path)
    assert (connected.server_hostname, connected.proxy) == ("kubernetes", "http://127.0.0.1:3128")
    assert await connected.authorization() is None


async def test_verification_is_off_only_where_the_kubeconfig_says_so(kubeconfig: Callable[..., str]) -> None:
    connected = await Connection.load(kubeconfig=kubeconfig({"token": "t"}, **{"insecure-skip-tls-verify": True}))
    assert connected.tls is not None
    assert connected.tls.verify_mode == ssl.CERT_NONE


async def test_a_client_certificate_is_presented(kubeconfig: Callable[..., str]) -> None:
    ca = trustme.CA()
    client, server = ca.issue_cert("client@example.com"), ca.issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    encoded = {
        "client-certificate-data": base64.b64encode(client.cert_chain_pems[0].bytes()).decode(),
        "client-key-data": base64.b64encode(client.private_key_pem.bytes()).decode(),
    }
    path = kubeconfig(
        encoded,
        server=f"https://127.0.0.1:{runner.addresses[0][1]}",
        **{"certificate-authority-data": base64.b64encode(ca.cert_pem.bytes()).decode()},
    )
    cluster = await Cluster.connect(kubeconfig=path)
    assert await cluster.version(ACCOUNTS) == "7"
    await cluster.close()
    await runner.cleanup()


async def test_a_watch_that_is_given_up_does_not_wait_for_the_other_side_to_end_tls(
    kubeconfig: Callable[..., str],
) -> None:
    """A busy API server takes leave late; until then, the socket would be open though the client is closed."""
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)

    def serve(listener: socket.socket) -> int:
        """Answer one watch, and never take leave. Returns how many octets came before the end of the connection."""
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.settimeout(10)
            while b"\r\n\r\n" not in tls.recv(4096):
                pass
            line = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}\n'
            tls.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(line), line))
            octets = 0
            with suppress(ConnectionError):
                while found := socket.socket.recv(tls, 4096):  # what is below TLS
                    octets += len(found)
            return octets

    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = asyncio.create_task(asyncio.to_thread(serve, listener))
        encoded = base64.b64encode(ca.cert_pem.bytes()).decode()
        server = f"https://127.0.0.1:{listener.getsockname()[1]}"
        path = kubeconfig({"token": "x"}, server=server, **{"certificate-authority-data": encoded})
        cluster = await Cluster.connect(kubeconfig=path)
        async with aclosing(cluster.watch(ACCOUNTS, resource_version="5")) as events:
            await anext(events)
        await ended  # TimeoutError, if the connection stays open
        await cluster.close()


async def test_a_plugin_is_asked_for_a_token_and_asked_again_after_a_401(api: FakeApiServer, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"""#!/bin/sh
echo x >> {tmp_path}/calls
cat <<END
{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
  "status": {{"token": "token-$(wc -l < {tmp_path}/calls | tr -d ' ')",
              "expirationTimestamp": "2999-01-01T00:00:00Z"}}}}
END
"""
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    cluster = await Cluster.connect(kubeconfig=str(api.write_kubeconfig(tmp_path / "config", user=user)))
    api.tokens = {"token-1"}
    await cluster.list(ACCOUNTS)
    api.tokens = {"token-2"}
    await cluster.list(ACCOUNTS)
    assert [each.verb for each in api.requests] == ["list"] * 3
    await cluster.close()


async def test_a_plugin_whose_token_is_still_good_is_not_asked_again(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"""#!/bin/sh
echo x >> {tmp_path}/calls
echo '{{"apiVersion": "v1", "kind": "ExecCredential",
        "status": {{"token": "t", "expirationTimestamp": "2999-01-01T00:00:00Z"}}}}'
"""
    )
    plugin.chmod(0o700)
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"exec": {"apiVersion": "v1", "command": str(plugin)}}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    source = Kubeconfig(str(tmp_path / "config"), None)
    await source(anew=True)
    await source(anew=False)
    assert (tmp_path / "calls").read_text() == "x\n"


async def test_another_client_certificate_is_used_from_then_on(tmp_path: Path) -> None:
    ca = trustme.CA()
    for name in ("one", "two"):
        certificate = ca.issue_cert(f"{name}@example.com")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / name))

    class Rotating:
        name = "one"

        async def __call__(self, *, anew: bool) -> Configuration:  # noqa: ARG002 - the shape of a Source
            configuration = Configuration(host="https://127.0.0.1:1")
            configuration.cert_file = configuration.key_file = str(tmp_path / self.name)
            return configuration

    source, monotonic = Rotating(), Monotonic()
    connected = Connection(await source(anew=True), source, monotonic=monotonic)
    loaded: list[object] = []
    assert connected.tls is not None
    connected.tls = _Recording(loaded)  # type: ignore[assignment]
    source.name = "two"
    monotonic.now += 60
    await connected.authorization()
    monotonic.now += 60
    await connected.authorization()
    assert loaded == [str(tmp_path / "two")]


class _Recording:
    def __init__(self, loaded: list[object]) -> None:
        self._loaded = loaded

    def load_cert_chain(self, certificate: str, _key: str) -> None:
        self._loaded.append(certificate)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("users: [{token: SECRET, ]", "is not YAML"),
        ("", "cannot be used"),
        ("[]", "cannot be used"),
        ("current-context: nowhere\ncontexts: []\nclusters: []\nusers: []", "nowhere"),
        ("{}", "current-context"),
    ],
)
async def test_a_broken_kubeconfig_is_named_and_not_quoted(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(Misconfigured, match=words) as caught:
        await Connection.load(kubeconfig=str(path))
    assert str(path) in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "token").write_text("first")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    return tmp_path


async def test_in_a_pod_the_service_accounts_token_is_read_again_when_it_rotates(pod: Path) -> None:
    monotonic, source = Monotonic(), InPod(pod)
    connected = Connection(await source(anew=True), source, monotonic=monotonic)
    assert connected.host == "https://127.0.0.1:6443"
    assert await connected.authorization() == "bearer first"
    (pod / "token").write_text("second\n")
    monotonic.now += 60
    assert await connected.authorization() == "bearer second"


async def test_a_token_file_that_is_gone_for_a_moment_does_no_harm(pod: Path, caplog: pytest.LogCaptureFixture) -> None:
    monotonic, source = Monotonic(), InPod(pod)
    connected = Connection(await source(anew=True), source, monotonic=monotonic)
    (pod / "token").unlink()
    monotonic.now += 60
    with caplog.at_level(logging.WARNING):
        assert await connected.authorization() == "bearer first"
    (pod / "token").write_text("second")
    monotonic.now += 60
    assert await connected.authorization() == "bearer second"


async def test_a_pod_without_a_kubeconfig_connects_by_its_service_account(pod: Path) -> None:
    assert (await Connection.load(service_account=pod)).host == "https://127.0.0.1:6443"


async def test_where_there_is_neither_pod_nor_kubeconfig_the_message_says_so(
    pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(
        Misconfigured, match=r"no kubeconfig \(--kubeconfig, KUBECONFIG, ~/.kube/config\), and this is no pod"
    ):
        await Connection.load(service_account=pod)


def test_the_kubeconfig_is_the_one_that_kubectl_would_use(tmp_path: Path) -> None:
    for each in ("asked", "environment", "home/.kube/config"):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    home, environ = tmp_path / "home", {"KUBECONFIG": f"{tmp_path}/environment:{tmp_path}/missing"}
    assert kubeconfig_path(str(tmp_path / "asked"), environ=environ, home=home) == str(tmp_path / "asked")
    assert kubeconfig_path(None, environ=environ, home=home) == environ["KUBECONFIG"]
    assert kubeconfig_path(None, environ={}, home=home) == str(home / ".kube/config")
    assert kubeconfig_path(None, environ={}, home=tmp_path) is None
    with pytest.raises(Misconfigured, match="missing does not exist"):
        kubeconfig_path(None, environ={"KUBECONFIG": f"{tmp_path}/missing"}, home=home)
