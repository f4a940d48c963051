"""Odd paths, methods and headers, as clients send them: byte by byte, because clients' libraries would tidy them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from acme_server.api.authentication import MAXIMUM_BODY
from acme_server.api.request import Request
from acme_server.api.routing import Router, get
from tests.support.server import Server

PROFILE = "/acme/pki/web"
ORDER = f"{PROFILE}/orders/{'a' * 32}"
READ = "GET,HEAD"


@dataclass(frozen=True)
class Reply:
    """What came back, with the interim answers before it."""

    interim: bytes
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(server: Server, head: str, *headers: str, body: bytes = b"") -> Reply:
    lines = "\r\n".join([f"{head} HTTP/1.1", "Host: x", "Connection: close", *headers])
    reader, writer = await asyncio.open_connection(server.http.host, server.http.port)
    writer.write(f"{lines}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    interim = b""
    if answer.startswith(b"HTTP/1.1 100 "):
        interim, _, answer = answer.partition(b"\r\n\r\n")
    first, *fields = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    found = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
    return Reply(interim, int(first.split()[1]), found, answer.partition(b"\r\n\r\n")[2])


@pytest.mark.requirement("S43", "SEC05")
@pytest.mark.parametrize(
    ("target", "get", "post", "allow"),
    [
        ("/", 200, 405, READ),
        ("/?x=1", 200, 405, READ),
        ("//", 404, 404, None),
        ("/acme", 404, 404, None),
        (f"{PROFILE}", 404, 404, None),
        (f"{PROFILE}/", 200, 405, READ),
        (f"{PROFILE}//", 404, 404, None),
        (f"{PROFILE}/directory", 200, 415, None),
        (f"{PROFILE}/directory?x", 200, 415, None),
        (f"{PROFILE}/directory#x", 200, 415, None),
        (f"{PROFILE}/direct%6Fry", 200, 415, None),
        (f"{PROFILE}/directory/", 404, 404, None),
        (f"{PROFILE}/directory%2F", 404, 404, None),
        (f"{PROFILE}/directory%3Fx", 404, 404, None),
        (f"{PROFILE}/./directory", 404, 404, None),
        ("/acme/pki/x/../web/directory", 404, 404, None),
        ("/acme/pki%2Fweb/directory", 404, 404, None),
        ("/%61cme/pki/web/directory", 200, 415, None),
        ("//acme/pki/web/directory", 404, 404, None),
        ("http://x/acme/pki/web/directory", 200, 415, None),
        ("https://acme.example.com", 404, 404, None),
        (f"{PROFILE}/renewal-info/a%2Fb.c", 400, 405, READ),
        (f"{PROFILE}/renewal-info/a/b", 404, 404, None),
        (f"{PROFILE}/renewal-info/", 404, 404, None),
        (f"{PROFILE}/renewal-info/{'a' * 257}", 404, 404, None),
        (f"{PROFILE}/%6Eew-nonce", 204, 415, None),
        (f"{PROFILE}/NEW-NONCE", 404, 404, None),
        (f"{PROFILE}/new-nonce;x=1", 404, 404, None),
        (f"{PROFILE}/new-nonce%0a", 404, 404, None),
        (f"{PROFILE}/new-nonce%00", 404, 404, None),
        (f"{PROFILE}/new-nonce%ff", 404, 404, None),
        (ORDER, 405, 415, "POST"),
        (f"{ORDER}/certificate/1", 405, 415, "POST"),
        (f"{ORDER}/certificate/0", 404, 404, None),
        (f"{ORDER}/finalize/x", 404, 404, None),
        ("/health%7A", 200, 405, READ),
        ("/healthz/", 404, 404, None),
        ("/ca/pki/ca.crt", 200, 405, READ),
        ("/ca/pki/ca%2Ecrt", 200, 405, READ),
        ("/ca/pki/ca.crt/", 404, 404, None),
        ("/ca/pki/c%2Fa.crt", 404, 404, None),
        ("/crl/pki/directory", 404, 404, None),
    ],
)
async def test_a_path_is_answered_by_its_spelling(
    server: Server, target: str, get: int, post: int, allow: str | None
) -> None:
    read, written = await ask(server, f"GET {target}"), await ask(server, f"POST {target}", "Content-Length: 0")
    assert (read.status, written.status) == (get, post)
    assert allow == (read if get == 405 else written).headers.get("allow")
    head = await ask(server, f"HEAD {target}")
    assert (head.status, head.body) == (200 if get == 204 else get, b"")


@pytest.mark.requirement("SEC05")
@pytest.mark.parametrize(
    ("method", "status"), [("PUT", 405), ("OPTIONS", 405), ("PROPFIND", 405), ("get", 400), ("CONNECT", 404)]
)
async def test_a_method_is_answered_by_its_name(server: Server, method: str, status: int) -> None:
    answer = await ask(server, f"{method} {PROFILE}/directory")
    assert (answer.status, answer.headers.get("allow")) == (status, "GET,HEAD,POST" if status == 405 else None)


@pytest.mark.requirement("S43")
async def test_a_client_that_waits_for_100_continue_gets_it_before_its_answer(server: Server) -> None:
    """curl asks for it before long bodies, and sends none until it comes."""
    reader, writer = await asyncio.open_connection(server.http.host, server.http.port)
    writer.write(
        f"POST {PROFILE}/new-order HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\n"
        "Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n".encode()
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


@pytest.mark.requirement("SEC36")
async def test_a_body_that_was_waved_through_is_still_limited(server: Server) -> None:
    length = f"Content-Length: {MAXIMUM_BODY + 1}"
    answer = await ask(
        server,
        f"POST {PROFILE}/new-order",
        "Content-Type: application/jose+json",
        "Expect: 100-continue",
        length,
        body=b"x" * (MAXIMUM_BODY + 1),
    )
    assert (answer.interim, answer.status) == (b"HTTP/1.1 100 Continue", 413)


@pytest.mark.requirement("S43")
async def test_another_expectation_is_refused_with_a_problem_document(server: Server) -> None:
    answer = await ask(server, f"GET {PROFILE}/directory", "Expect: miracles")
    assert (answer.interim, answer.status) == (b"", 417)
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"miracles" not in answer.body


async def test_a_header_without_an_expectation_expects_nothing(server: Server) -> None:
    answer = await ask(server, f"GET {PROFILE}/directory", "Expect:")
    assert (answer.interim, answer.status) == (b"", 200)


def test_a_path_and_method_has_one_route() -> None:
    async def handler(_: Request, __: object) -> None: ...

    with pytest.raises(ValueError, match="GET /x has a route already"):
        Router([get("/x", handler), get("/x", handler)])  # type: ignore[arg-type]
