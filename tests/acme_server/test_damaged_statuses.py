"""Statuses of orders and accounts that somebody has damaged: nothing fails, nothing is granted, the rest goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.problems import Unavailable
from e2e.load.keys import certificate_id
from kms.cluster.errors import Undecodable
from kms.pki.certificate import certificate_pem
from kms.pki.keys import PrivateKey
from kms.resources.kinds import ACCOUNTS, ORDERS, Kind
from tests.support import pki
from tests.support.acme import ClientKey, b64
from tests.support.apiserver import spoil
from tests.support.domain import NAMESPACE
from tests.support.server import Answer, Server, running_server

pytestmark = pytest.mark.requirement("SEC77", "SEC82")

FOREIGN = certificate_pem(pki.root(common_name="Foreign").certificate)
GARBAGE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
PAST, FUTURE = "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
YEAR_ONE, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
BEYOND = "9999-12-31T23:59:59-11:00"
"""A time that API servers take, and that is beyond the last one in UTC."""
NAME = {"type": "dns", "value": "www.example.com"}
VALID = {"type": "http-01", "state": "valid", "validated": "2026-01-01T00:00:00Z"}


@dataclass
class Client:
    """An account with a certificate, an order that waits for its CSR, and one that waits for validation."""

    server: Server
    key: PrivateKey
    certificate: x509.Certificate
    issued: Answer
    ready: Answer
    pending: Answer


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running_server() as server:
        server.world.services.state.order_index.mark_complete()
        server.world.services.state.account_index.mark_complete()
        await server.register()
        key = pki.key(which="leaf")
        order = await server.ready("www.example.com")
        issued = await server.finalize(order, pki.csr("www.example.com", signed_with=key))
        leaf = await server.certificate(issued)
        yield Client(
            server, key, leaf, issued, await server.ready("a.example.com"), await server.order("b.example.com")
        )


async def damage(server: Server, kind: Kind[Any], url: str, path: str, value: Any) -> str:
    """Change the stored object, as somebody with kubectl does, and let the watch deliver it. Returns its name."""
    name = url.rsplit("/", 1)[-1]
    spoil(server.world.api, kind, name, path, value)
    state = server.world.services.state
    store: Any = state.orders if kind is ORDERS else state.accounts
    try:
        store.apply_event(await server.world.cluster.get(kind, NAMESPACE, name), False)
    except Undecodable as error:
        store.apply_unreadable(error.unreadable, False)
    return name


async def walk(client: Client, order: Answer, names: str) -> list[tuple[str, Answer]]:
    """Every request about an order."""
    server, found = client.server, []

    async def ask(what: str, *args: Any, **more: Any) -> None:
        found.append((what, await server.post(*args, **more)))

    location = order.location
    authz = order.json["authorizations"][0]
    await ask("order", location)
    await ask("authorization", authz)
    await ask("challenge", f"{authz}/challenges/http-01")
    await ask("respond", f"{authz}/challenges/http-01", {})
    await ask("finalize", order.json["finalize"], {"csr": b64(pki.csr(names))})
    await ask("certificate", f"{server.base}/certificates/{location.rsplit('/', 1)[-1]}")
    der = client.certificate.public_bytes(Encoding.DER)
    signing = ClientKey("ES256", client.key)
    payload = {"certificate": b64(der)}
    found.append(("renewal", await server.get(f"{server.base}/renewal-info/{certificate_id(client.certificate)}")))
    await ask("new order", f"{server.base}/new-order", {"identifiers": [{"type": "dns", "value": names}]})
    await ask("revoke by key", f"{server.base}/revoke-cert", payload, key=signing, jwk=signing.jwk)
    await ask("revoke", f"{server.base}/revoke-cert", payload)
    await ask("deactivate", authz, {"status": "deactivated"})
    await ask("orders", f"{server.kid}/orders")
    return found


def authorized(**changes: Any) -> list[dict[str, Any]]:
    """The only authorization of an order, valid without end unless it is changed."""
    return [{"identifier": NAME, "state": "valid", "expires": FUTURE, "challenges": [VALID], **changes}]


OTHER = {"type": "dns", "value": "evil.example.com"}
AUTHORIZATIONS: list[Any] = [
    *([], None, [{}], "no list"),
    *(authorized() * 2, authorized(challenges=[]), authorized(expires=YEAR_ONE), authorized(expires=LAST)),
    *(authorized(expires=each, challenges=[{**VALID, "validated": each}]) for each in (LAST, BEYOND)),
    *(authorized(identifier=OTHER), authorized(wildcard=True), authorized(challenges=[{**VALID, "state": "pending"}])),
    *(
        authorized(challenges=[{"type": "http-01", "state": "valid"}]),
        authorized(challenges=[{**VALID, "type": "dns-01"}]),
    ),
    authorized(state="pending", challenges=[{"type": "http-01", "state": "processing"}]),
    authorized(state="pending", challenges=[{"type": "http-01", "state": "processing", "started": FUTURE}]),
    authorized(state="invalid", challenges=[{"type": "http-01", "state": "invalid"}]),
]
STATES: list[tuple[str, Any]] = [
    *(("status", each) for each in ({}, None, {"state": "ready"}, {"state": "valid"}, {"state": "invalid"})),
    ("status", {"state": "processing", "request": b64(b"no CSR"), "csrDigest": "0", "accepted": PAST}),
    ("status", {"state": "processing", "accepted": FUTURE, "authorizations": authorized()}),
    ("status", {"state": "processing", "request": "", "accepted": LAST, "authorizations": authorized()}),
    ("status", {"state": "ready", "authorizations": authorized(identifier=OTHER)}),
    *(("status.state", each) for each in ("pending", "processing", "valid", "invalid", "other", None)),
    *(("status.authorizations", each) for each in AUTHORIZATIONS),
]
CERTIFICATES: list[tuple[str, Any]] = [
    *(("status.certificate", each) for each in (None, "", GARBAGE, FOREIGN, "\u0000", "\u00fc")),
    *(("status.serialNumber", each) for each in (None, "", "-1", "xyz", "A" * 200, "00ff", "f" * 128)),
    *(("status.authorityKeyID", each) for each in (None, "", "xyz", "\u00e9")),
    *(("status.publicKeyDigest", each) for each in (None, "xyz")),
    *((f"status.{field}", each) for field in ("issuedAt", "notBefore", "notAfter") for each in (None, LAST, BEYOND)),
    *((f"status.{field}", YEAR_ONE) for field in ("issuedAt", "notBefore", "notAfter")),
    ("status.notAfter", PAST),
    ("status.notBefore", FUTURE),
    *(("status.revocation", {"time": each, "reason": "superseded"}) for each in (YEAR_ONE, PAST, FUTURE, LAST, BEYOND)),
    *(("status.revocation", each) for each in ({}, None, {"time": PAST}, {"time": PAST, "reason": "no reason"})),
    *(("status.request", each) for each in ("", "no base64")),
    *(("status.error", each) for each in ({}, {"type": "x y", "detail": "\u0000"})),
    *(("status.authority", each) for each in ({}, {"name": "x", "type": "Vault"})),
    *(
        ("status.issuance", each)
        for each in ({}, {"attempt": 2**63}, {"attempt": -1, "claim": {"replica": "", "time": LAST}})
    ),
    *(("status.leftOut", each) for each in (None, ["\u0000"])),
    ("status.conditions", None),
    ("status.conditions", [{}]),
]


async def failed(client: Client, order: Answer, path: str, value: Any) -> dict[str, str]:
    """The requests about the damaged order that the server cannot answer; what is damaged is put back."""
    server, name = client.server, order.json["identifiers"][0]["value"]
    stored = server.world.api.read(ORDERS, NAMESPACE, order.location.rsplit("/", 1)[-1])
    status = msgspec.to_builtins(stored.status)  # type: ignore[union-attr]
    await damage(server, ORDERS, order.location, path, value)
    found = await walk(client, order, name)
    with contextlib.suppress(Unavailable):  # while an order cannot be read that may have a revoked certificate
        await server.world.services.crls.current(NAMESPACE, "ca")
    await damage(server, ORDERS, order.location, "status", status)
    assert path != "status.certificate" or dict(found)["certificate"].status != 200 or value == FOREIGN
    return {f"{path}={value!r}: {what}": each.text for what, each in found if each.status == 500}


async def test_a_certificate_of_which_something_is_damaged(client: Client) -> None:
    bad: dict[str, str] = {}
    for path, value in (*CERTIFICATES, *STATES):
        bad |= await failed(client, client.issued, path, value)
    assert bad == {}


@pytest.mark.parametrize("which", ["ready", "pending"])
async def test_an_open_order_of_which_something_is_damaged(client: Client, which: str) -> None:
    bad: dict[str, str] = {}
    for path, value in STATES:
        bad |= await failed(client, getattr(client, which), path, value)
    assert bad == {}


@pytest.mark.parametrize("end", [LAST, BEYOND])
async def test_an_order_that_somebody_has_made_to_last_until_the_end_of_time(client: Client, end: str) -> None:
    bad: dict[str, str] = {}
    for path, value in (("status.state", "pending"), ("status.state", "processing"), ("status.notAfter", end)):
        await damage(client.server, ORDERS, client.ready.location, "spec.expires", end)
        bad |= await failed(client, client.ready, path, value)
    assert bad == {}


@pytest.mark.parametrize("damaged", [each for each in AUTHORIZATIONS if each])
async def test_authorizations_that_are_not_those_of_the_order_grant_nothing(client: Client, damaged: Any) -> None:
    server = client.server
    await damage(server, ORDERS, client.ready.location, "status.authorizations", damaged)
    answer = await server.finalize(client.ready, pki.csr("a.example.com"))
    assert answer.status in {403, 503}, answer.text
    again = await server.order("a.example.com")
    assert again.json["status"] == "pending"


async def test_an_order_with_fewer_authorizations_than_names_is_not_issued(client: Client) -> None:
    server = client.server
    order = await server.ready("a.example.com", "c.example.com")
    stored: Any = server.world.api.read(ORDERS, NAMESPACE, order.location.rsplit("/", 1)[-1])
    (first, *_) = msgspec.to_builtins(stored.status.authorizations)
    await damage(server, ORDERS, order.location, "status.authorizations", [first])
    answer = await server.finalize(order)
    assert (answer.status, answer.problem["type"]) == (403, "orderNotReady")
    assert "do not fit" in answer.problem["detail"]


async def test_a_damaged_certificate_is_named_in_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    name = await damage(client.server, ORDERS, client.issued.location, "status.certificate", GARBAGE)
    answer = await client.server.post(client.issued.json["certificate"])
    assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
    assert [each.order for each in caplog.records if hasattr(each, "order")][-1] == f"{NAMESPACE}/{name}"


RECORD = {"state": "Active", "uid": "x", "changedAt": PAST}
ACCOUNTS_DAMAGE: list[tuple[str, Any]] = [
    *(("status", each) for each in ({}, None, {"state": "valid"}, {"state": "revoked"})),
    *(("status.state", each) for each in ("deactivated", "revoked", "suspended", "other", None, 1)),
    *(("status.key", each) for each in ({}, {"jwk": "", "thumbprint": "", "changedAt": PAST})),
    ("status.key", {"jwk": "{}", "thumbprint": "x", "changedAt": LAST}),
    ("status.key", {"jwk": '{"kty":"RSA","n":"AA","e":"AA"}', "thumbprint": "x", "changedAt": PAST}),
    ("status.key", {"jwk": '{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}', "thumbprint": "\u0000", "changedAt": PAST}),
    ("status.key", {"jwk": "[" * 5000, "thumbprint": "x", "changedAt": PAST}),
    ("status.key", {"jwk": "\u00fc", "thumbprint": "x", "changedAt": PAST}),
    *(("status.formerKeys", each) for each in (None, [""], ["\u0000", "x" * 500], "text")),
    *(("status.contact", each) for each in ([""], ["javascript:x"], ["mailto:\u0000"])),
    ("status.contact", {}),
    *(("status.contactText", each) for each in (None, "\u0000", 5)),
    *(("status.termsOfServiceAgreed", each) for each in (None, "", "\u0000")),
    *(
        (f"status.{field}", each)
        for field in ("suspendedAt", "deactivatedAt")
        for each in (None, YEAR_ONE, LAST, "soon")
    ),
    *(("status.credential", each) for each in (None, {}, {"state": "Active", "uid": "", "changedAt": LAST})),
    ("status.credential", {"state": "Deleted", "uid": "x", "changedAt": YEAR_ONE, "names": {}}),
    (
        "status.credential",
        {"state": "Active", "uid": "x", "changedAt": PAST, "names": {"dnsNames": {"allowed": ["no name"]}}},
    ),
    (
        "status.credential",
        {"state": "Active", "uid": "x", "changedAt": PAST, "clientNamespace": "\u0000", "shared": True},
    ),
]


async def test_an_account_of_which_something_is_damaged(client: Client) -> None:
    server = client.server
    bad: dict[str, str] = {}
    at = server.kid or ""
    stored: Any = server.world.api.read(ACCOUNTS, NAMESPACE, at.rsplit("/", 1)[-1])
    status = msgspec.to_builtins(stored.status)
    for path, value in ACCOUNTS_DAMAGE:
        await damage(server, ACCOUNTS, at, path, value)
        answers = [
            await server.post(at),
            await server.post(at, {"contact": ["mailto:a@example.com"]}),
            await server.post(f"{at}/orders"),
            await server.post(client.ready.location),
            await server.order("www.example.com"),
            await server.post(f"{server.base}/new-account", {"termsOfServiceAgreed": True}, jwk=server.key.jwk),
            await server.post(f"{server.base}/key-change", {"protected": "", "payload": "", "signature": ""}),
            await server.post(at, {"status": "deactivated"}),
        ]
        bad |= {f"{path}={value!r}"[:90]: each.text for each in answers if each.status == 500}
        await damage(server, ACCOUNTS, at, "status", status)
    assert bad == {}
