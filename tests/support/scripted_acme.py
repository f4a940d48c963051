"""A tiny ACME server over HTTP that follows RFC 8555, except for answers that a test scripts."""

from __future__ import annotations

import itertools
import json
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from e2e.load.keys import b64url_decode

PEM_CHAIN = "application/pem-certificate-chain"
URN = "urn:ietf:params:acme:error:"
ROUTES = (
    "directory",
    "nonce",
    "account",
    "new-order",
    "authorization",
    "challenge",
    "order",
    "finalize",
    "certificate",
    "renewal-info",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request: its step, HTTP method, Host header, protected header and payload."""

    step: str
    method: str
    host: str
    protected: dict[str, Any] = field(default_factory=dict)
    payload: Any = None


@dataclass(slots=True)
class StoredOrder:
    names: list[str]
    status: str = "pending"
    answered: int = 0
    chain: str = ""


def problem(kind: str, status: int, **headers: str) -> web.Response:
    body = {"type": URN + kind, "detail": f"said {kind}", "status": status}
    return web.json_response(body, status=status, content_type="application/problem+json", headers=headers)


class ScriptedAcme:
    """The server. `instead[step]` has scripted answers in order; `seen` has the requests."""

    def __init__(self) -> None:
        self.instead: dict[str, deque[web.Response]] = {step: deque() for step in ROUTES}
        self.seen: list[Seen] = []
        self.base = ""
        self.stop: Callable[[], Awaitable[None]]
        self._nonces: set[str] = set()
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self._orders: list[StoredOrder] = []
        self._issuer = ec.generate_private_key(ec.SECP256R1())
        self._serials = itertools.count(1)

    def script(self, step: str, *answers: web.Response) -> None:
        self.instead[step].extend(answers)

    def count(self) -> Counter[str]:
        return Counter(each.step for each in self.seen)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_route("*", "/{step}", self._answer)
        application.router.add_route("*", "/{step}/{number}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.Response:
        step, what = request.match_info["step"], request.match_info.get("number", "")
        number = int(what) if what.isdecimal() else 0
        protected, payload = self._opened(await request.json()) if request.can_read_body else ({}, None)
        self.seen.append(Seen(step, request.method, request.host, protected, payload))
        answer = self.instead[step].popleft() if self.instead[step] else self._right(step, number, payload)
        if step == "nonce" and request.method == "GET" and answer.status == web.HTTPOk.status_code:
            answer.set_status(web.HTTPNoContent.status_code)
        if step != "directory" and "X-Bare" not in answer.headers:
            nonce = secrets.token_urlsafe(16)
            self._nonces.add(nonce)
            answer.headers.setdefault("Replay-Nonce", nonce)
            answer.headers.add("Link", f'<{self.base}/directory>;rel="index"')
        return answer

    def _opened(self, jws: dict[str, str]) -> tuple[dict[str, Any], Any]:
        """Verify the signature, the nonce and the URL of a JWS."""
        protected = json.loads(b64url_decode(jws["protected"]))
        payload = b64url_decode(jws["payload"])
        if "jwk" in protected:
            x, y = (int.from_bytes(b64url_decode(protected["jwk"][name]), "big") for name in "xy")
            key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
            self._keys[f"{self.base}/account/{len(self._keys) + 1}"] = key
        else:
            key = self._keys[protected["kid"]]
        raw = b64url_decode(jws["signature"])
        signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        key.verify(signature, f"{jws['protected']}.{jws['payload']}".encode(), ec.ECDSA(hashes.SHA256()))
        self._nonces.remove(protected["nonce"])
        return protected, json.loads(payload) if payload else None

    def _right(self, step: str, number: int, payload: Any) -> web.Response:
        answers: dict[str, Callable[[], web.Response]] = {
            "directory": self._directory,
            "nonce": lambda: web.Response(headers={"Cache-Control": "no-store"}),
            "account": self._account,
            "new-order": lambda: self._new_order(payload),
            "order": lambda: self._order(number),
            "authorization": lambda: self._authorization(number),
            "challenge": lambda: self._challenge(number),
            "finalize": lambda: self._finalized(number, payload),
            "certificate": lambda: web.Response(text=self._orders[number].chain, content_type=PEM_CHAIN),
            "renewal-info": self._renewal_info,
        }
        return answers[step]()

    def _directory(self) -> web.Response:
        members = {
            "newNonce": "nonce",
            "newAccount": "account",
            "newOrder": "new-order",
            "renewalInfo": "renewal-info",
        }
        return web.json_response({name: f"{self.base}/{step}" for name, step in members.items()})

    def _account(self) -> web.Response:
        return web.json_response({"status": "valid"}, status=201, headers={"Location": next(reversed(self._keys))})

    def _new_order(self, payload: Any) -> web.Response:
        status = "ready" if "replaces" in payload else "pending"
        self._orders.append(StoredOrder([each["value"] for each in payload["identifiers"]], status))
        return self._order(len(self._orders) - 1, status=201)

    def _order(self, number: int, status: int = 200) -> web.Response:
        order = self._orders[number]
        body: dict[str, Any] = {
            "status": order.status,
            "identifiers": [{"type": "dns", "value": name} for name in order.names],
            "authorizations": [f"{self.base}/authorization/{number * 100 + at}" for at in range(len(order.names))],
            "finalize": f"{self.base}/finalize/{number}",
        }
        if order.status == "valid":
            body["certificate"] = f"{self.base}/certificate/{number}"
        return web.json_response(body, status=status, headers={"Location": f"{self.base}/order/{number}"})

    def _renewal_info(self) -> web.Response:
        window = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
        return web.json_response({"suggestedWindow": window}, headers={"Retry-After": "21600"})

    def _challenge(self, number: int) -> web.Response:
        order = self._orders[number // 100]
        order.answered += 1
        if order.answered == len(order.names):
            order.status = "ready"
        body = {"type": "http-01", "url": f"{self.base}/challenge/{number}", "status": "processing", "token": "t"}
        return web.json_response(body, headers={"Link": f'<{self.base}/authorization/{number}>;rel="up"'})

    def _authorization(self, number: int) -> web.Response:
        order, at = self._orders[number // 100], number % 100
        url = f"{self.base}/challenge/{number}"
        status = "valid" if order.answered > at else "pending"
        challenges = [
            {"type": "dns-01", "url": url + "9", "status": "pending", "token": "u"},
            {"type": "http-01", "url": url, "status": status, "token": "t"},
        ]
        identifier = {"type": "dns", "value": order.names[at]}
        return web.json_response({"status": status, "identifier": identifier, "challenges": challenges})

    def _finalized(self, number: int, payload: dict[str, str]) -> web.Response:
        order = self._orders[number]
        request = x509.load_der_x509_csr(b64url_decode(payload["csr"]))
        order.chain = self.leaf(request.public_key(), order.names)
        order.status = "valid"
        return self._order(number)

    def leaf(self, key: Any, names: list[str]) -> str:
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Scripted CA")]))
            .subject_name(x509.Name([]))
            .public_key(key)
            .serial_number(next(self._serials))
            .not_valid_before(now)
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier(b"scripted", None, None), critical=False)
            .sign(self._issuer, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM).decode()

    def wrong_key_chain(self, names: list[str]) -> str:
        return self.leaf(ec.generate_private_key(ec.SECP256R1()).public_key(), names)


@asynccontextmanager
async def running_acme() -> AsyncIterator[ScriptedAcme]:
    """Run the server at the URL `base`; `stop` stops it early."""
    acme = ScriptedAcme()
    async with TestServer(acme.application()) as server:
        acme.base = str(server.make_url("")).rstrip("/")
        acme.stop = server.close
        yield acme
