from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from e2e.load.exchange import JOSE, Exchange, ProtocolError
from e2e.load.keys import AccountKey
from tests.support.scripted_acme import ScriptedAcme


async def test_requests_go_to_each_server_in_turn_under_the_name_of_the_directory(acme: ScriptedAcme) -> None:
    url, asked = "http://acme.load.test:8443", []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.host)
        return web.Response()

    application = web.Application()
    application.router.add_get("/directory", handler)
    async with TestServer(application) as other:
        servers = [acme.base, str(other.make_url("")).rstrip("/")]
        async with Exchange(f"{url}/directory", servers=servers) as exchange:
            answers = [await exchange.request("GET", f"{url}/directory") for _ in range(4)]
    assert {each.url for each in answers} == {f"{url}/directory"}
    assert [each.host for each in acme.seen] == asked == ["acme.load.test:8443"] * 2


async def test_members_of_the_protected_header_can_be_replaced_and_left_out(acme: ScriptedAcme) -> None:
    async with Exchange(f"{acme.base}/directory") as exchange:
        key = AccountKey.generate()
        changes = {"url": "https://elsewhere.test/", "extra": 1, "alg": None}
        answer = await exchange.signed(f"{acme.base}/account", {"a": 1}, key=key, protected=changes)
    assert answer.status == 201
    assert acme.seen[-1].protected.keys() == {"jwk", "nonce", "url", "extra"}
    assert acme.seen[-1].protected["url"] == "https://elsewhere.test/"
    assert acme.seen[-1].payload == {"a": 1}


async def test_a_given_nonce_is_used_and_the_one_that_comes_back_is_kept(acme: ScriptedAcme) -> None:
    async with Exchange(f"{acme.base}/directory") as exchange:
        nonce = await exchange.new_nonce()
        assert not exchange.nonces
        answer = await exchange.signed(f"{acme.base}/account", {}, key=AccountKey.generate(), nonce=nonce)
        assert acme.seen[-1].protected["nonce"] == nonce
        assert list(exchange.nonces) == [answer.nonce]
        assert await exchange.nonce() == answer.nonce


async def test_headers_can_be_replaced(acme: ScriptedAcme) -> None:
    types: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        types.append(request.headers.get("Content-Type"))
        return web.Response()

    application = web.Application()
    application.router.add_post("/", handler)
    async with TestServer(application) as server, Exchange(f"{acme.base}/directory") as exchange:
        url, key = str(server.make_url("/")), AccountKey.generate()
        await exchange.signed(url, None, key=key, nonce="n")
        await exchange.signed(url, None, key=key, nonce="n", headers={"Content-Type": "text/plain"})
    assert types == [JOSE, "text/plain"]


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (web.Response(status=500), "answered 500"),
        (web.Response(text="{"), "not JSON"),
        (web.json_response({"newNonce": "n", "newAccount": "a"}), "no newOrder"),
    ],
)
async def test_a_directory_that_cannot_be_used_is_a_breach(acme: ScriptedAcme, answer: web.Response, rule: str) -> None:
    acme.script("directory", answer)
    async with Exchange(f"{acme.base}/directory") as exchange:
        with pytest.raises(ProtocolError, match=rule):
            await exchange.directory()


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (web.Response(status=204, headers={"Cache-Control": "no-store"}), "answered 204"),
        (web.Response(headers={"Cache-Control": "no-store", "X-Bare": "1"}), "nonce None"),
        (web.Response(), "no-store"),
    ],
)
async def test_a_new_nonce_that_breaks_the_rules_is_a_breach(
    acme: ScriptedAcme, answer: web.Response, rule: str
) -> None:
    acme.script("nonce", answer)
    async with Exchange(f"{acme.base}/directory") as exchange:
        with pytest.raises(ProtocolError, match=rule):
            await exchange.new_nonce()


async def test_a_new_nonce_can_be_had_by_get_too(acme: ScriptedAcme) -> None:
    async with Exchange(f"{acme.base}/directory") as exchange:
        assert await exchange.new_nonce("GET")
        acme.script("nonce", web.Response(status=205, headers={"Cache-Control": "no-store"}))
        with pytest.raises(ProtocolError, match="answered 205"):
            await exchange.new_nonce("GET")
    assert [each.method for each in acme.seen] == ["GET", "GET", "GET"]


async def test_links_are_found_by_their_relation(acme: ScriptedAcme) -> None:
    async def handler(_request: web.Request) -> web.Response:
        answer = web.Response()
        answer.headers.add("Link", '<https://a/up>; rel="up", <https://a/index>;rel="index"')
        answer.headers.add("Link", "<https://a/alternate>; title=x; rel=alternate")
        return answer

    application = web.Application()
    application.router.add_get("/", handler)
    async with TestServer(application) as server, Exchange(f"{acme.base}/directory") as exchange:
        answer = await exchange.request("GET", str(server.make_url("/")))
    assert answer.links("up") == ["https://a/up"]
    assert answer.links("index") == ["https://a/index"]
    assert answer.links("alternate") == ["https://a/alternate"]
    assert answer.links("terms-of-service") == []
