"""A Vault that repeats what it is sent, in every answer: no log line, order, audit record or metric has it."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from acme_server.audit.stream import AuditStream
from acme_server.orders.external_issuance import Pace
from acme_server.orders.issuance_waiting import Schedule
from kms.clock import system_clock
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import (
    AppRoleAuth,
    AuthoritySpec,
    AuthorityStatus,
    CertificateAuthority,
    ExternalAuthority,
    KubernetesAuth,
    SecretKeyRef,
    VaultAuth,
    VaultAuthority,
)
from kms.resources.core import Secret
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import ACMEOrder
from tests.support.domain import NAMESPACE, RELEASE, World, running_world
from tests.support.eventually import until
from tests.support.scripted_issuer import ANCHOR

SENT = "s3nt-and-never-to-be-shown-anywhere"
TOKEN = "t0ken-and-never-to-be-shown-anywhere"
AT_ONCE = Schedule(after_failures=(), shortest=timedelta(milliseconds=10), longest=timedelta(milliseconds=10))
REF = SecretKeyRef(name="openbao", key="key")
LOGINS = {
    "appRole": (VaultAuth(app_role=AppRoleAuth(role_id="role", secret_ref=REF)), "secret-id"),
    "kubernetes": (VaultAuth(kubernetes=KubernetesAuth(role="role", service_account_ref=LocalRef(name="x"))), "jwt"),
    "token": (VaultAuth(token_secret_ref=REF), "token"),
}

Answer = Callable[[str], web.Response]


def refusing(status: int) -> Answer:
    return lambda echo: web.json_response({"errors": [echo, f"{echo}\n{echo}"]}, status=status)


def _certificate(echo: str) -> web.Response:
    data = {"certificate": echo, "ca_chain": [echo]}
    return web.json_response({"data": data, "warnings": [echo], "auth": None})


def _redirect(echo: str) -> web.Response:
    return web.Response(status=307, headers={"Location": f"/v1/{base64.b16encode(echo.encode()).decode()}?{TOKEN}"})


ANSWERS: dict[str, Answer] = {
    **{str(status): refusing(status) for status in (400, 403, 404, 418, 429, 500, 502, 503)},
    "certificate": _certificate,
    "redirect": _redirect,
    "text": lambda echo: web.Response(text=echo),
    "list": lambda echo: web.json_response([echo]),
}


@dataclass
class Vault:
    """The server, and how it answers next."""

    url: str = ""
    answer: Answer = _certificate


@asynccontextmanager
async def repeating() -> AsyncIterator[Vault]:
    vault = Vault()

    async def handle(request: web.Request) -> web.StreamResponse:
        sent = await request.text()
        if request.path.endswith("/login"):
            return web.json_response({"auth": {"client_token": TOKEN, "lease_duration": 3600}, "warnings": [sent]})
        return vault.answer(f"you sent {request.headers.get('X-Vault-Token')} after {SENT} and {sent[:10]}")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        vault.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield vault
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(url: str, login: str, audit: Path) -> AsyncIterator[World]:
    auth, key = LOGINS[login]

    def configure(world: World) -> None:
        world.asks, world.pace, world.schedule = True, Pace(inline=0.05, look=0.02, later=0.02), AT_ONCE
        world.audit = AuditStream(logging.FileHandler(audit), replica="server-0", clock=system_clock)

    async with running_world(configure) as world:
        world.services.state.account_index.mark_complete()
        data = {"role-id": b"role", key: SENT.encode()}
        world.secrets.put(Secret(metadata=ObjectMeta(namespace=RELEASE, name="ca-vault-uid"), data=data))
        vault = VaultAuthority(server=url, path="pki/sign/web", auth=auth)
        world.authorities.put(
            CertificateAuthority(
                metadata=ObjectMeta(namespace=NAMESPACE, name="ca", uid="vault-uid"),
                spec=AuthoritySpec(external=ExternalAuthority(vault=vault, trust_anchors=(ANCHOR,), timeout="30s")),
                status=AuthorityStatus(chain=ANCHOR),
            )
        )
        try:
            yield world
        finally:
            await world.services.external.issuers.close()
            world.audit.close()


async def told(world: World, order: ACMEOrder) -> None:
    """Wait until the order says why it has no certificate."""

    def says() -> bool:
        return world.stored(order).status.conditions != () or world.stored(order).status.state != "processing"

    await until(says, seconds=10)


@pytest.mark.requirement("X48", "SEC64", "X39")
@pytest.mark.parametrize("login", LOGINS)
async def test_what_vault_repeats_is_shown_nowhere(
    login: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    audit = tmp_path / "audit"
    async with repeating() as vault, asking(vault.url, login, audit) as world:
        account: ACMEAccount = await world.account()
        for number, vault.answer in enumerate(ANSWERS.values()):
            order = await world.finalized(account, await world.proven(account, f"h{number}.example.com"))
            await told(world, order)
        issuer = world.services.external.issuers.of(world.profile.authority)
        places = {
            "objects": json.dumps([each for key, each in world.api.store.by_key.items() if key.plural != "secrets"]),
            "metrics": world.metrics.exposition().decode(),
            "audit": audit.read_text(encoding="utf-8"),
            "memory": f"{issuer!r}{world.services.external!r}",
            "log": "\n".join(f"{each.getMessage()} {vars(each)!r}" for each in caplog.records),
        }
        await world.services.issuance.drain(0)
    assert places["log"].count("CA has signed nothing") >= len(ANSWERS) - 1
    assert "(secret)" in places["objects"], "the words of the CA are told without what it was sent"
    for place, text in places.items():
        assert not [each for each in (SENT, TOKEN) if each in text], place
