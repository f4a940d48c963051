"""Calls to a real OpenBao: logins, tokens that end, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from e2e.cluster.ports import free_port
from kms.issuers.vault import (
    BadRequest,
    Credentials,
    InvalidCredentials,
    LoginFailed,
    NotServed,
    PermissionDenied,
    Sealed,
    Unreachable,
    VaultClient,
    VaultError,
    VaultSession,
    credentials_in,
    log_in,
    log_out,
)
from kms.issuers.vault.client import CALL_SECONDS
from kms.resources.authorities import AppRoleAuth, KubernetesAuth, SecretKeyRef, VaultAuth, VaultServer
from kms.resources.meta import LocalRef
from tests.support.openbao import SECRET_ID, TOKEN_AUTH, AppRole, JWTAuth, OpenBao


@dataclass
class Clock:
    """Seconds that the test lets pass."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def app_role(login: AppRole) -> VaultAuth:
    return VaultAuth(app_role=AppRoleAuth(role_id=login.role_id, mount_path=login.mount, secret_ref=SECRET_ID))


def kubernetes(login: JWTAuth) -> VaultAuth:
    account = LocalRef(name="issuer")
    return VaultAuth(kubernetes=KubernetesAuth(role="kms", mount_path=login.mount, service_account_ref=account))


@asynccontextmanager
async def session(
    server: VaultServer, credentials: Credentials, *, clock: Callable[[], float] | None = None, pause: float = 0.0
) -> AsyncIterator[VaultSession]:
    made = VaultSession(server, lambda: credentials, login_pause=pause, monotonic=clock or Clock())
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.requirement("X21")
async def test_all_calls_use_one_token_until_two_thirds_of_its_life(openbao: OpenBao) -> None:
    policy = openbao.policy({"sys/mounts": ("read",)})
    login = openbao.app_role(policy, token_ttl="600s")
    clock = Clock()
    async with session(openbao.server(app_role(login)), Credentials(secret_id=login.secret_id), clock=clock) as calls:
        await asyncio.gather(*(calls.call("GET", "sys/mounts") for _ in range(20)))
        clock.now = 399
        await calls.call("GET", "sys/mounts")
        assert openbao.tokens_of(policy) == 1
        clock.now = 401
        await asyncio.gather(*(calls.call("GET", "sys/mounts") for _ in range(20)))
        assert openbao.tokens_of(policy) == 2
    assert openbao.tokens_of(policy) == 1, "closing revokes the token in use"


@pytest.mark.requirement("X21")
async def test_a_token_that_was_revoked_costs_one_more_login(openbao: OpenBao) -> None:
    policy = openbao.policy({"sys/mounts": ("read",)})
    login = openbao.jwt_auth(policy, bound_audiences=["kms"])
    credentials = Credentials(jwt=login.token("kms"))
    async with session(openbao.server(kubernetes(login)), credentials) as calls:
        await calls.call("GET", "sys/mounts")
        openbao.write(f"sys/leases/revoke-prefix/auth/{login.mount}/login")
        assert openbao.tokens_of(policy) == 0
        await asyncio.gather(*(calls.call("GET", "sys/mounts") for _ in range(20)))
        assert openbao.tokens_of(policy) == 1


@pytest.mark.requirement("X21")
async def test_what_a_token_may_not_do_leads_to_no_storm_of_logins(openbao: OpenBao) -> None:
    policy = openbao.policy({"sys/mounts": ("read",)})
    login = openbao.app_role(policy)
    clock = Clock()
    credentials = Credentials(secret_id=login.secret_id)
    async with session(openbao.server(app_role(login)), credentials, clock=clock, pause=5) as calls:
        for _ in range(10):
            with pytest.raises(PermissionDenied):
                await calls.call("GET", "sys/auth")
        assert openbao.tokens_of(policy) == 1
        clock.now = 6
        with pytest.raises(PermissionDenied):
            await calls.call("GET", "sys/auth")
        assert openbao.tokens_of(policy) == 2


async def test_a_token_of_a_secret_is_used_as_it_is_and_never_revoked(openbao: OpenBao) -> None:
    policy = openbao.policy({"sys/mounts": ("read",)})
    tokens = [openbao.token(policy), openbao.token(policy)]
    current = VaultSession(openbao.server(TOKEN_AUTH), lambda: Credentials(token=tokens[0]))
    await current.call("GET", "sys/mounts")
    openbao.request("POST", "auth/token/revoke", {"token": tokens.pop(0)})
    await current.call("GET", "sys/mounts")
    await current.close()
    assert openbao.tokens_of(policy) == 1


async def test_calls_name_the_namespace(openbao: OpenBao) -> None:
    inside = openbao.within("team-a")
    policy = inside.policy({"sys/mounts": ("read",)})
    login = inside.app_role(policy)
    async with session(inside.server(app_role(login)), Credentials(secret_id=login.secret_id)) as calls:
        await calls.call("GET", "sys/mounts")
    async with session(openbao.server(app_role(login)), Credentials(secret_id=login.secret_id)) as calls:
        with pytest.raises(LoginFailed):
            await calls.call("GET", "sys/mounts")


@pytest.mark.parametrize(
    ("auth", "fix"),
    [
        (VaultAuth(app_role=AppRoleAuth(role_id="nobody", secret_ref=SECRET_ID)), "check roleID and mountPath"),
        (
            VaultAuth(kubernetes=KubernetesAuth(role="nobody", service_account_ref=LocalRef(name="issuer"))),
            "the audience kms-acme://NAMESPACE/NAME",
        ),
    ],
    ids=["approle", "kubernetes"],
)
async def test_a_refused_login_says_where_and_quotes_nothing(openbao: OpenBao, auth: VaultAuth, fix: str) -> None:
    async with session(openbao.server(auth), Credentials(jwt="jwt-s3cr3t", secret_id="id-s3cr3t")) as calls:
        with pytest.raises(LoginFailed, match=r"auth/\w+/login: HTTP 40[03]: the server refuses the login") as failed:
            await calls.call("GET", "sys/mounts")
    assert fix in str(failed.value)
    assert "s3cr3t" not in f"{failed.value}{failed.value.words}"


async def test_statuses_become_errors(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    client = VaultClient(openbao.server(TOKEN_AUTH))
    try:
        with pytest.raises(BadRequest) as refused:
            await client.call("POST", f"{mount}/sign/other", {"csr": "x"}, token=openbao.root_token)
        assert refused.value.words == "unknown role: other"
        with pytest.raises(NotServed):
            await client.call("POST", "nowhere/sign/web", {"csr": "x"}, token=openbao.root_token)
        with pytest.raises(PermissionDenied):
            await client.call("POST", f"{mount}/sign/web", {"csr": "x"})
    finally:
        await client.close()


async def test_a_sealed_server_is_one_that_answers_later(openbao: OpenBao) -> None:
    login = openbao.app_role(openbao.policy({"sys/mounts": ("read",)}))
    async with session(openbao.server(app_role(login)), Credentials(secret_id=login.secret_id)) as calls:
        openbao.seal()
        try:
            with pytest.raises(Sealed) as sealed:
                await calls.call("GET", "sys/mounts")
            assert not sealed.value.is_ambiguous
        finally:
            openbao.unseal()
        await calls.call("GET", "sys/mounts")


@dataclass
class Stranger:
    """A server that is not Vault, by plain HTTP on the loopback address."""

    url: str
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    seen: list[web.Request] = field(default_factory=list)

    @property
    def server(self) -> VaultServer:
        return VaultServer(server=self.url, auth=TOKEN_AUTH)


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    async def handle(request: web.Request) -> web.StreamResponse:
        made.seen.append(request)
        assert made.answer is not None
        return await made.answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made = Stranger(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield made
    finally:
        await runner.cleanup()


async def _fails(stranger: Stranger, **limits: float) -> VaultError:
    client = VaultClient(stranger.server, call_seconds=limits.get("call_seconds", CALL_SECONDS), longest_answer=1000)
    try:
        with pytest.raises(VaultError) as failed:
            await client.call("POST", "pki/sign/web", {"csr": "x"}, token="s3cr3t-token")
    finally:
        await client.close()
    assert "s3cr3t" not in f"{failed.value!r}{failed.value.words}"
    return failed.value


@pytest.mark.requirement("X20")
async def test_redirects_are_not_followed(stranger: Stranger) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"{stranger.url}/v1/elsewhere")

    stranger.answer = answer
    assert isinstance(await _fails(stranger), NotServed)
    assert len(stranger.seen) == 1


@pytest.mark.requirement("X20", "X48")
async def test_a_server_that_repeats_the_token_is_not_quoted(stranger: Stranger) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"errors": [f"you sent {request.headers['X-Vault-Token']}"]}, status=400)

    stranger.answer = answer
    assert (await _fails(stranger)).words == "you sent (secret)"


@pytest.mark.requirement("X20", "X48")
async def test_a_server_that_quotes_the_login_later_is_not_quoted(stranger: Stranger) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/login"):
            return web.json_response({"auth": {"client_token": "s3cr3t-token"}})
        return web.json_response({"errors": ["you sent s3cr3t-id"]}, status=400)

    stranger.answer = answer
    login_id = "s3cr3t-id"
    auth = VaultAuth(app_role=AppRoleAuth(role_id="role", secret_ref=SecretKeyRef(name="x", key="x")))
    async with session(VaultServer(server=stranger.url, auth=auth), Credentials(secret_id=login_id)) as calls:
        with pytest.raises(BadRequest) as refused:
            await calls.call("POST", "pki/sign/web", {"csr": "x"})
        assert refused.value.words == "you sent (secret)"


@pytest.mark.requirement("X20")
async def test_long_answers_are_not_read(stranger: Stranger) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 1001)

    stranger.answer = answer
    error = await _fails(stranger)
    assert isinstance(error, Unreachable)
    assert error.is_ambiguous


async def _html(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>")


async def _list(_: web.Request) -> web.StreamResponse:
    return web.json_response([{"auth": "s3cr3t"}])


async def _silence(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def _hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _status(status: int) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="s3cr3t gateway")

    return answer


@pytest.mark.parametrize(
    ("answer", "is_ambiguous"),
    [
        (_html, True),
        (_list, True),
        (_silence, True),
        (_hangs_up, True),
        (_status(502), True),
        (_status(504), True),
        (_status(503), False),
        (_status(429), False),
        (_status(473), False),
    ],
    ids=["html", "list", "silence", "hangs-up", "502", "504", "503", "429", "473"],
)
async def test_whether_the_server_may_have_done_it_all_the_same(
    stranger: Stranger, answer: Callable[[web.Request], Awaitable[web.StreamResponse]], is_ambiguous: bool
) -> None:
    stranger.answer = answer
    error = await _fails(stranger, call_seconds=0.5)
    assert isinstance(error, Unreachable)
    assert error.is_ambiguous is is_ambiguous


async def test_nothing_was_sent_where_there_is_no_connection(openbao: OpenBao) -> None:
    for server in (
        VaultServer(server=f"https://127.0.0.1:{free_port()}", auth=TOKEN_AUTH),
        VaultServer(server=openbao.url, auth=TOKEN_AUTH),  # the system's roots do not know its CA
        VaultServer(server=openbao.url, auth=TOKEN_AUTH, ca_bundle="no PEM"),
        VaultServer(server="https://name.invalid", auth=TOKEN_AUTH),
    ):
        client = VaultClient(server)
        try:
            with pytest.raises(Unreachable) as failed:
                await client.call("POST", "pki/sign/web", {"csr": "x"}, token="s3cr3t-token")
        finally:
            await client.close()
        assert not failed.value.is_ambiguous
        assert "s3cr3t" not in str(failed.value)


@pytest.mark.parametrize(
    ("auth", "data", "problem"),
    [
        (TOKEN_AUTH, {}, "key token is missing"),
        (TOKEN_AUTH, {"token": b" \n"}, "key token is empty"),
        (TOKEN_AUTH, {"token": b"s3cr3t\r\nX-Evil: 1"}, "characters that no token has"),
        (TOKEN_AUTH, {"token": b"s3cr3t\xff"}, "not ASCII"),
        (VaultAuth(app_role=AppRoleAuth(role_id="a", secret_ref=SECRET_ID)), {"role-id": b"b"}, "another role ID"),
    ],
)
def test_credentials_that_cannot_be_sent(auth: VaultAuth, data: Mapping[str, bytes], problem: str) -> None:
    with pytest.raises(InvalidCredentials, match=problem) as invalid:
        credentials_in(data, auth)
    assert "s3cr3t" not in str(invalid.value)


@pytest.mark.requirement("X48")
def test_credentials_show_nothing_and_lose_line_breaks() -> None:
    found = credentials_in({"token": b"s3cr3t\n"}, TOKEN_AUTH)
    assert found == Credentials(token="s3cr3t")
    assert "s3cr3t" not in repr(found)


@pytest.mark.requirement("X48")
async def test_no_log_line_has_a_token_or_a_secret_id(openbao: OpenBao, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    login = openbao.app_role(openbao.policy({"sys/mounts": ("read",)}))
    credentials = Credentials(secret_id=login.secret_id)
    auth = app_role(login)
    client = VaultClient(openbao.server(auth))
    found = await log_in(client, auth, credentials)
    with pytest.raises(PermissionDenied) as denied:
        await client.call("POST", "pki/sign/web", {"csr": "x"}, token=found.token)
    await log_out(client, found)
    await client.close()
    async with session(openbao.server(auth), credentials) as calls:
        await calls.call("GET", "sys/mounts")
        openbao.write(f"sys/leases/revoke-prefix/auth/{login.mount}/login")
        with pytest.raises(PermissionDenied):
            await calls.call("GET", "sys/auth")
    said = f"{caplog.text}{found!r}{credentials!r}{denied.value!r}{denied.value.words}"
    assert found.token not in said
    assert login.secret_id not in said
