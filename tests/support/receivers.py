"""Receivers of notifications: real https servers on 127.0.0.1."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from kms.pki.certificate import certificate_pem, sign_leaf
from kms.pki.keys import private_key_pem
from kms.pki.names import ip_address
from tests.support import pki

KEY = b"k" * 40
_NOW = datetime.now(UTC)
ROOT = pki.root(not_before=_NOW - pki.DAY, not_after=_NOW + 30 * pki.DAY, with_key=pki.key(which="receivers"))
BUNDLE = certificate_pem(ROOT.certificate)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write the certificate and key of a receiver, as two files."""
    template = pki.leaf(ip_address("127.0.0.1"), not_before=_NOW - pki.DAY, not_after=_NOW + pki.DAY)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_text(certificate_pem(sign_leaf(template, ROOT)))
    key.write_bytes(private_key_pem(pki.key()))
    return certificate, key


@dataclass
class Receiver:
    """What it was sent, in this order. It answers with `status`, after `delay` seconds."""

    port: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0
    status: int = 204
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/events?from=kms"

    def types(self) -> list[str]:
        return [each["type"].removeprefix("ai.hanzo.kms.pki.") for each in self.events]

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.attempts += 1
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
        mac = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
        assert request.headers["webhook-signature"] == f"v1,{mac}"
        assert request.content_type == "application/cloudevents+json"
        await asyncio.sleep(self.delay)
        if 200 <= self.status < 300:
            event = json.loads(body)
            assert event["id"] == request.headers["webhook-id"]
            self.events.append(event)
        return web.Response(status=self.status, headers=self.headers)


@asynccontextmanager
async def running_receiver(**options: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver(**options)
    application = web.Application()
    application.router.add_post("/events", receiver.handle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        context.load_cert_chain(*write_certificate(Path(folder)))
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()
