"""Who gets the pages of the console: the browser of one person, and no other program, site or user."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.apiserver import FakeApiServer
from tests.support.console import Visitor, visiting

pytestmark = pytest.mark.requirement("P8")

LIST = ("", "certificates", "orders", "authorities", "profiles", "accounts", "try")


@pytest.fixture
async def visitor(api: FakeApiServer) -> AsyncIterator[Visitor]:
    async with visiting(api) as visitor:
        yield visitor


async def test_the_token_works_once_and_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(
    api: FakeApiServer,
) -> None:
    async with visiting(api, enter=False) as visitor:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{16}/start\?token=[\w-]{43}", visitor.url)
        wrong = await visitor.get("start?token=" + "a" * 43)
        assert (wrong.status, "Set-Cookie" in wrong.headers) == (403, False)
        assert (await visitor.get("start")).status == 403
        assert (await visitor.get("start?token=%C3%A9")).status == 403
        first = await visitor.get(visitor.url.partition(visitor.root + "/")[2])
        assert (first.status, first.headers["Location"]) == (303, visitor.root.partition(visitor.origin)[2] + "/")
        cookie = first.headers["Set-Cookie"]
        path = visitor.root.partition(visitor.origin)[2]
        assert re.fullmatch(
            rf"kms-acme-console=[\w-]{{43}}; HttpOnly; Path={re.escape(path)}/; SameSite=Strict", cookie
        ), cookie
        assert (await visitor.get("")).status == 200
        # The browser that has the cookie may open the address again; another one may not.
        assert (await visitor.get(visitor.url.partition(visitor.root + "/")[2])).status == 303
        async with aiohttp.ClientSession() as other, other.get(visitor.url, allow_redirects=False) as answer:
            assert (answer.status, "has been used before" in await answer.text()) == (403, True)


async def test_without_the_cookie_nothing_is_shown(api: FakeApiServer) -> None:
    async with visiting(api, enter=False) as visitor:
        for path in (*LIST, "changes", "static/console.js", "orders/pki/x", "none"):
            for cookies in ({}, {"kms-acme-console": ""}, {"kms-acme-console": "a" * 43}, {"other": "a"}):
                page = await visitor.get(path, cookies=cookies)
                assert (page.status, page.html) == (403, "Open the address that kms-acme console has printed.\n"), path


FOREIGN = (
    {"Host": "localhost:{port}"},
    {"Host": "rebound.example.com:{port}"},
    {"Host": "rebound.example.com"},
    {"Host": "127.0.0.1"},
    {"Host": "127.0.0.1:{port}.example.com"},
    {"Host": ""},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://localhost:{port}"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "https://evil.example.com"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)


async def test_other_hosts_and_origins_are_refused_even_with_the_cookie(visitor: Visitor) -> None:
    port = visitor.origin.partition(":")[2]
    for headers in FOREIGN:
        sent = {name: value.replace("{port}", port) for name, value in headers.items()}
        for path in ("", "changes", "static/console.js", "start?token=x"):
            page = await visitor.get(path, headers=sent)
            assert (page.status, "kms-acme-console" in str(page.headers)) == (403, False), (path, headers)
    own = {"Origin": f"http://{visitor.origin}", "Sec-Fetch-Site": "same-origin"}
    assert (await visitor.get("", headers=own)).status == 200


async def test_a_request_with_two_hosts_is_refused(visitor: Visitor) -> None:
    (cookie,) = visitor.session.cookie_jar
    host, port = visitor.origin.split(":")
    path = visitor.root.partition(visitor.origin)[2]
    for hosts in (f"Host: {visitor.origin}\r\nHost: evil.example.com\r\n", ""):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path}/ HTTP/1.1\r\n{hosts}Cookie: {cookie.key}={cookie.value}\r\n\r\n".encode())
        status = await reader.readline()
        assert status.split()[1] in {b"400", b"403"}, status
        writer.close()
        await writer.wait_closed()


async def test_the_one_method_is_get(visitor: Visitor, api: FakeApiServer) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"):
        for path in (*LIST, "start?token=x", "orders/pki/x", "none"):
            assert (await visitor.request(method, path)).status == 405, (method, path)
    assert api.writes == []


async def test_files_beside_the_static_ones_are_not_served(visitor: Visitor) -> None:
    host, port = visitor.origin.split(":")
    (cookie,) = visitor.session.cookie_jar
    base = visitor.root.partition(visitor.origin)[2]
    assert (await visitor.get("static/console.css")).status == 200
    for path in (
        "static/../templates/base.html",
        "static/..%2ftemplates%2fbase.html",
        "static/%2e%2e/templates/base.html",
        "static/....//base.html",
        "static//etc/passwd",
        "static/%2fetc%2fpasswd",
        "static/..\\server.py",
        "static/console.css%00.html",
        "static/",
        "../../../etc/passwd",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        request = f"GET {base}/{path} HTTP/1.1\r\nHost: {visitor.origin}\r\nConnection: close\r\n"
        writer.write(f"{request}Cookie: {cookie.key}={cookie.value}\r\n\r\n".encode())
        status = (await reader.read()).split(b" ", 2)[1]
        assert status in {b"400", b"403", b"404"}, path
        writer.close()
        await writer.wait_closed()


async def test_every_answer_has_the_headers_that_browsers_need(visitor: Visitor) -> None:
    wanted = {
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    for path in (*LIST, "static/console.css", "none", "start"):
        headers = (await visitor.get(path)).headers
        policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
        assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("frame-ancestors") == "'none'"
        assert set(policy.values()) == {"'self'"}
        assert {name: headers[name] for name in wanted} == wanted
        assert "Access-Control-Allow-Origin" not in headers


async def test_the_console_listens_on_the_loopback_address_and_writes_nothing(
    visitor: Visitor, api: FakeApiServer
) -> None:
    assert visitor.origin.startswith("127.0.0.1:")
    await visitor.settled()
    for path in LIST:
        await visitor.get(path)
    assert api.requests
    assert api.writes == []
