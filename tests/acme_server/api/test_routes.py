"""SEC01: every route has one authentication mode; this table is the decision about each, and a new route fails it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding
from yarl import URL

from acme_server.api.application import ROUTES
from acme_server.api.routing import Access
from e2e.load.keys import certificate_id
from tests.support.acme import EXTERNAL_URL, ClientKey, b64, binding, signed
from tests.support.domain import KEY_ID_1
from tests.support.server import Server, running_server

ORDER = "a" * 32
ACCOUNT = "a" * 52
PREFIX = "/acme/pki/web"

TABLE: dict[tuple[str, str], Access] = {
    ("GET", "/"): Access.PUBLIC,
    ("GET", "/healthz"): Access.PUBLIC,
    ("GET", "/readyz"): Access.PUBLIC,
    ("GET", ""): Access.PUBLIC,
    ("GET", "directory"): Access.PUBLIC,
    ("POST", "directory"): Access.ACCOUNT,
    ("GET", "new-nonce"): Access.PUBLIC,
    ("POST", "new-nonce"): Access.ACCOUNT,
    ("GET", "renewal-info/{certificate}"): Access.PUBLIC,
    ("POST", "new-account"): Access.KEY,
    ("POST", "accounts/{account}"): Access.ACCOUNT,
    ("POST", "accounts/{account}/orders"): Access.ACCOUNT,
    ("POST", "accounts/{account}/orders/{cursor}"): Access.ACCOUNT,
    ("POST", "key-change"): Access.ACCOUNT,
    ("POST", "new-order"): Access.ACCOUNT,
    ("POST", "new-authz"): Access.ACCOUNT,
    ("POST", "orders/{order}"): Access.ACCOUNT,
    ("POST", "orders/{order}/finalize"): Access.ACCOUNT,
    ("POST", "orders/{order}/certificate"): Access.ACCOUNT,
    ("POST", "orders/{order}/certificate/{chain}"): Access.ACCOUNT,
    ("POST", "authorizations/{order}-{position}"): Access.ACCOUNT,
    ("POST", "authorizations/{order}-{position}/challenges/{type}"): Access.ACCOUNT,
    ("POST", "revoke-cert"): Access.ACCOUNT_OR_KEY,
    ("GET", "/crl/{namespace}/{authority}.crl"): Access.PUBLIC,
    ("GET", "/crl/{namespace}/{authority}/{key}.crl"): Access.PUBLIC,
    ("GET", "/ca/{namespace}/{authority}/{key}.crt"): Access.PUBLIC,
    ("GET", "/ca/{namespace}/{authority}.crt"): Access.PUBLIC,
    ("GET", "/crl/serving.crl"): Access.PUBLIC,
    ("GET", "/ca/serving.crt"): Access.PUBLIC,
}
BY_KEY = [path for (method, path), access in TABLE.items() if access is Access.KEY]
BY_ACCOUNT = [path for (method, path), access in TABLE.items() if access is Access.ACCOUNT]
BY_EITHER = [path for (method, path), access in TABLE.items() if access is Access.ACCOUNT_OR_KEY]
SIGNED = BY_KEY + BY_ACCOUNT + BY_EITHER
BOTH = {path for method, path in TABLE if method == "GET"}
ISSUING = ("/new-order", "/new-authz", "/finalize", "/challenges/{type}")
"""What a profile that is not ready refuses, beside new accounts."""


def concrete(template: str) -> str:
    path = template.format(
        account=ACCOUNT,
        order=ORDER,
        position=0,
        type="http-01",
        certificate="a.b",
        cursor="next",
        chain=1,
        namespace="pki",
        authority="ca",
        key="a" * 16,
    )
    return path if path.startswith("/") else f"{PREFIX}/{path}"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        running.kid = running.opened()
        yield running


@pytest.mark.requirement("SEC01")
async def test_every_route_of_the_application_is_in_the_table(server: Server) -> None:
    for path in {path for _, path in TABLE}:
        methods = {method for method, other in TABLE if other == path}
        answer = await server.get(concrete(path), "PATCH")
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(",")) == methods | ({"HEAD"} if "GET" in methods else set())


@pytest.mark.requirement("SEC01")
def test_every_route_has_the_access_that_the_table_says() -> None:
    prefix = "/acme/{namespace}/{profile}/"
    declared = {
        (route.method, web.DynamicResource(route.path).canonical.removeprefix(prefix)): route.access for route in ROUTES
    }
    assert declared == TABLE
    assert len(declared) == len(ROUTES)


@pytest.mark.requirement("M6", "SEC01", "SEC37")
@pytest.mark.parametrize("path", SIGNED)
async def test_a_request_that_is_not_signed_is_refused(server: Server, path: str) -> None:
    for body in (b"", b"{}", b"null", b"payload"):
        answer = await server.post(concrete(path), body=body)
        assert (answer.status, answer.problem["type"]) == (400, "malformed")
    assert server.world.calls() == []


@pytest.mark.requirement("M23")
@pytest.mark.parametrize("path", SIGNED)
@pytest.mark.parametrize(
    "media_type", ["application/json", "", "text/plain", "application/jose", "application/jose+jsonx"]
)
async def test_another_media_type_is_refused(server: Server, path: str, media_type: str) -> None:
    answer = await server.get(concrete(path), "POST", **{"Content-Type": media_type})
    assert (answer.status, answer.problem["type"]) == (415, "malformed")


@pytest.mark.requirement("M12", "M16", "SEC06")
@pytest.mark.parametrize("path", SIGNED)
async def test_a_request_with_both_a_jwk_and_a_kid_or_with_neither_is_refused(server: Server, path: str) -> None:
    kid = server.opened()
    for header in ({"jwk": server.key.jwk, "kid": kid}, {"jwk": None, "kid": None}):
        answer = await server.post(concrete(path), **header)
        assert (answer.status, answer.problem["type"]) == (400, "malformed")


@pytest.mark.requirement("M17", "SEC01", "SEC06")
@pytest.mark.parametrize("path", BY_KEY)
async def test_a_kid_where_a_jwk_belongs_is_refused(server: Server, path: str) -> None:
    answer = await server.post(concrete(path), {}, kid=server.opened())
    assert (answer.status, answer.problem["type"]) == (400, "malformed")


@pytest.mark.requirement("M18", "SEC01", "SEC06")
@pytest.mark.parametrize("path", BY_ACCOUNT)
async def test_a_jwk_where_a_kid_belongs_is_refused(server: Server, path: str) -> None:
    server.opened()
    answer = await server.post(concrete(path), jwk=server.key.jwk, kid=None)
    assert (answer.status, answer.problem["type"]) == (400, "malformed")


@pytest.mark.parametrize("path", BY_EITHER)
async def test_where_either_may_sign_the_sender_is_who_the_request_says(server: Server, path: str) -> None:
    forged = await server.post(concrete(path), {"certificate": "MAA"}, jwk=ClientKey().jwk)
    assert (forged.status, forged.problem["detail"]) == (400, "The signature of the request is not valid.")
    for header in ({"jwk": server.key.jwk}, {"kid": server.kid}):
        answer = await server.post(concrete(path), {"certificate": "MAA"}, **header)
        assert "X.509" in answer.problem["detail"], "the sender is known, and what he sends is no certificate"


@pytest.mark.requirement("SEC01", "SEC04")
@pytest.mark.parametrize("path", BY_ACCOUNT + BY_EITHER)
async def test_the_kid_of_an_account_of_another_profile_does_not_exist(server: Server, path: str) -> None:
    answer = await server.post(concrete(path), kid=server.opened(profile="open"))
    assert (answer.status, answer.problem["type"]) == (400, "accountDoesNotExist")
    assert server.world.calls() == []


@pytest.mark.requirement("M24", "SEC01")
@pytest.mark.parametrize("path", BY_ACCOUNT + BY_EITHER)
async def test_the_kid_of_somebody_else_does_not_help(server: Server, path: str) -> None:
    answer = await server.post(concrete(path), kid=server.opened(ClientKey()))
    assert (answer.status, answer.problem["type"]) == (400, "malformed")


@pytest.mark.requirement("M24", "SEC37")
@pytest.mark.parametrize("path", BY_ACCOUNT + BY_EITHER)
async def test_an_unknown_kid_does_not_exist(server: Server, path: str) -> None:
    kid = f"{EXTERNAL_URL}{PREFIX}/accounts/{ACCOUNT}"
    answer = await server.post(concrete(path), kid=kid)
    assert (answer.status, answer.problem["type"]) == (400, "accountDoesNotExist")
    assert server.world.calls() == ["get acmeaccounts"]


@pytest.mark.requirement("M103", "SEC01", "SEC07")
@pytest.mark.parametrize("path", BY_ACCOUNT + BY_EITHER)
@pytest.mark.parametrize("state", ["deactivated", "revoked"])
async def test_an_account_that_has_ended_is_unauthorized(server: Server, path: str, state: Any) -> None:
    answer = await server.post(concrete(path), kid=server.opened(state=state))
    assert (answer.status, answer.problem["type"]) == (401, "unauthorized")


@pytest.mark.parametrize("path", BY_ACCOUNT + BY_EITHER)
async def test_an_account_that_is_not_open_yet_does_not_exist(server: Server, path: str) -> None:
    answer = await server.post(concrete(path), kid=server.opened(state=None))
    assert (answer.status, answer.problem["type"]) == (400, "accountDoesNotExist")


@pytest.mark.requirement("M33", "M34", "M35", "M38", "SEC20", "C5")
@pytest.mark.parametrize("path", SIGNED)
async def test_a_used_a_made_up_and_no_nonce_are_answered_with_a_good_one(server: Server, path: str) -> None:
    access: dict[str, Any] = {"jwk": server.key.jwk} if path in BY_KEY else {"kid": server.opened()}
    used = server.nonces.issue()
    assert server.nonces.redeem(server.nonces.read(used))
    for nonce in (used, used[:-1] + "A", "", None):
        answer = await server.post(concrete(path), nonce=nonce, **access)
        assert (answer.status, answer.problem["type"]) == (400, "badNonce")
        assert server.nonces.redeem(server.nonces.read(answer.headers["Replay-Nonce"]))
    answer = await server.post(concrete(path), nonce="not base64url!", **access)
    assert answer.problem["type"] == "malformed"


@pytest.mark.requirement("M30", "S31", "SEC15")
@pytest.mark.parametrize("path", SIGNED)
async def test_a_request_that_was_signed_for_another_url_is_refused(server: Server, path: str) -> None:
    access: dict[str, Any] = {"jwk": server.key.jwk} if path in BY_KEY else {"kid": server.opened()}
    url = EXTERNAL_URL + concrete(path)
    others = [
        url + "/",
        url + "?",
        url + "#x",
        url.replace("https", "http"),
        url.replace("acme.example.com", "acme.example.com:443"),
        url.replace("acme.example.com", "ACME.example.com"),
        str(server.http.make_url(concrete(path))),
        url.replace("/web/", "/open/"),
        concrete(path),
        "",
    ]
    for other in others:
        answer = await server.post(concrete(path), url=other, **access)
        assert (answer.status, answer.problem["type"]) == (403, "unauthorized")


@pytest.mark.requirement("SEC15")
@pytest.mark.parametrize("path", BY_ACCOUNT + BY_EITHER)
async def test_the_host_that_was_asked_counts_for_nothing(server: Server, path: str) -> None:
    forwarded = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    answer = await server.http.post(concrete(path), data=b"{}", headers=forwarded)
    assert "evil" not in str(answer.headers) + await answer.text()


@pytest.mark.requirement("M25", "SEC08")
@pytest.mark.parametrize("path", sorted(set(SIGNED) - BOTH))
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_than_post_are_not_allowed(server: Server, path: str, method: str) -> None:
    answer = await server.get(concrete(path), method)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.problem["type"] == "malformed"


@pytest.mark.requirement("M32", "M51", "M74", "SEC20")
@pytest.mark.parametrize("path", SIGNED)
async def test_every_answer_to_a_post_has_a_nonce_and_the_way_to_the_directory(server: Server, path: str) -> None:
    for answer in (
        await server.post(concrete(path)),
        await server.post(concrete(path), b"{"),
        await server.post(concrete(path), {}),
        await server.post(concrete(path), {}, jwk=server.key.jwk, externalAccountBinding=None),
        await server.get(concrete(path), "POST"),
        await server.get(concrete(path) + "/nowhere", "POST"),
    ):
        assert server.nonces.redeem(server.nonces.read(answer.headers["Replay-Nonce"]))
        assert f'<{EXTERNAL_URL}{PREFIX}/directory>;rel="index"' in answer.urls
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.requirement("SEC66", "C6")
@pytest.mark.parametrize("path", [each for each in SIGNED if each.endswith(ISSUING)])
async def test_a_profile_that_is_not_ready_asks_to_come_again(server: Server, path: str) -> None:
    server.world.configure(ready=False)
    answer = await server.post(concrete(path), {})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    assert answer.problem["type"] == "serverInternal"


@pytest.mark.parametrize("path", SIGNED)
async def test_a_profile_that_does_not_exist_is_not_found(server: Server, path: str) -> None:
    answer = await server.post(concrete(path).replace("web", "other"))
    assert (answer.status, answer.problem["type"]) == (404, "malformed")


@pytest.mark.requirement("SEC05")
@pytest.mark.parametrize(
    "path",
    [
        "/acme/pki/web/orders/" + "A" * 32,
        "/acme/pki/web/orders/short",
        "/acme/pki/web/orders/" + "a" * 32 + "/",
        "/acme/pki/web/authorizations/" + "a" * 32,
        "/acme/pki/web/authorizations/" + "a" * 32 + "-00",
        "/acme/pki/web/authorizations/" + "a" * 32 + "--1",
        "/acme/pki/web/authorizations/" + "a" * 32 + "-1000",
        "/acme/PKI/web/new-order",
        "/acme/pki//new-order",
        "/acme/pki/web%2Fx/new-order",
        "//acme/pki/web/new-order",
    ],
)
async def test_every_path_has_one_spelling(server: Server, path: str) -> None:
    url = URL(f"http://127.0.0.1:{server.http.port}{path}", encoded=True)
    async with server.http.session.post(url) as answer:
        assert answer.status == 404


@pytest.mark.requirement("S31", "SEC15")
@pytest.mark.parametrize("path", ["/acme/pki/web/new-orde%72", "/acme/pki/web/new-order?x=1"])
async def test_a_url_that_was_spelled_otherwise_is_refused_even_where_it_was_signed(server: Server, path: str) -> None:
    kid = server.opened()
    for signed_path in (path, "/acme/pki/web/new-order"):
        body = signed(server.key, b"{}", url=EXTERNAL_URL + signed_path, nonce=server.nonces.issue(), kid=kid)
        url = URL(f"http://127.0.0.1:{server.http.port}{path}", encoded=True)
        async with server.http.session.post(
            url, data=body, headers={"Content-Type": "application/jose+json"}
        ) as answer:
            assert answer.status == 403


@pytest.mark.requirement("M48", "M87", "S88", "SEC10", "M91")
@pytest.mark.parametrize("mode", ["Required", "Optional", "Disabled"])
async def test_the_directory_says_what_works_and_all_that_it_says_works(server: Server, mode: str) -> None:
    required = mode == "Required"
    server.world.configure(external_account_binding=mode)
    server.world.put_credential()
    server.world.services.state.order_index.mark_complete()
    directory = (await server.get(f"{PREFIX}/directory")).json
    assert directory["meta"] == {"externalAccountRequired": required}
    assert set(directory) == {
        *("newNonce", "newAccount", "newOrder", "keyChange", "revokeCert", "renewalInfo", "meta"),
    }
    server.key = key = ClientKey()
    without = await server.post(directory["newAccount"], {}, jwk=key.jwk)
    assert without.status == (403 if required else 201)
    if required:
        assert without.problem["type"] == "externalAccountRequired"
        eab = binding(key, url=directory["newAccount"], kid=KEY_ID_1)
        assert (await server.register(externalAccountBinding=eab)).status == 201
    else:
        server.kid = without.location
    nonce = (await server.get(directory["newNonce"], "HEAD")).headers["Replay-Nonce"]
    assert server.nonces.redeem(server.nonces.read(nonce))
    order = await server.finalize(await server.ready())
    assert order.json["status"] == "valid"
    certificate = await server.certificate(order)
    assert (await server.get(f"{directory['renewalInfo']}/{certificate_id(certificate)}")).status == 200
    revoked = {"certificate": b64(certificate.public_bytes(Encoding.DER))}
    assert (await server.post(directory["revokeCert"], revoked)).status == 200
