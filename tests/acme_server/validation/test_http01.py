from __future__ import annotations

import asyncio
import gzip
import logging
import ssl
import time
from ipaddress import ip_network

import pytest
import trustme

from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.http01 import HTTP01
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.http_client import HTTPClient
from acme_server.validation.net.redirects import PORTS
from kms.resources.orders import Identifier
from tests.support.nameserver import NameServer
from tests.support.webserver import Behaviour, answering, raw, redirecting, running_webserver

NAME = "web.example.com"
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDf"
KEY_AUTHORIZATION = f"{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
SECRET = b"secret of a neighbour"
LOOPBACK = (ip_network("127.0.0.0/8"),)


def validator(nameserver: NameServer, port: int, *, deadline: float = 5.0, connect: float = 1.0) -> HTTP01:
    settings = ValidationSettings(http01_port=port, allow=LOOPBACK)
    client = HTTPClient(
        resolver=Resolver((nameserver.address,), timeout=2.0),
        addresses=AddressFilter(settings),
        ports=PORTS | {port},
        deadline=deadline,
        connect=connect,
    )
    return HTTP01(client, port=port)


BEHIND = "redirects to a place where the key authorization of this challenge was not found"


async def validated(nameserver: NameServer, port: int, **limits: float) -> None:
    await validator(nameserver, port, **limits)(Identifier(type="dns", value=NAME), TOKEN, KEY_AUTHORIZATION)


async def failure(nameserver: NameServer, port: int, **limits: float) -> ValidationFailed:
    with pytest.raises(ValidationFailed) as caught:
        await validated(nameserver, port, **limits)
    assert SECRET.decode() not in caught.value.problem.detail
    return caught.value


def reason_in(caplog: pytest.LogCaptureFixture) -> str:
    """The reason of the latest failure behind a redirect, which the log alone has."""
    found = [vars(each) for each in caplog.records if each.message == "validation failed behind a redirect"]
    return str(found[-1]["error"])


async def failure_of(nameserver: NameServer, behaviour: Behaviour, **limits: float) -> ValidationFailed:
    async with running_webserver(behaviour) as server:
        return await failure(nameserver, server.port, **limits)


@pytest.mark.requirement("M147", "M150", "SEC47")
async def test_the_key_authorization_at_the_well_known_path_proves_control(nameserver: NameServer) -> None:
    async with running_webserver(answering(KEY_AUTHORIZATION.encode())) as server:
        await validated(nameserver, server.port)
    head = server.heads[0].decode()
    assert head.startswith(f"GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1\r\nHost: {NAME}\r\n")
    assert "cookie" not in head.lower()
    assert "authorization" not in head.lower()


@pytest.mark.requirement("S148", "S148")
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"  \t\r\n\n"])
async def test_trailing_white_space_is_ignored(nameserver: NameServer, ending: bytes) -> None:
    async with running_webserver(answering(KEY_AUTHORIZATION.encode() + ending)) as server:
        await validated(nameserver, server.port)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\nContent-Length: %d\n\n%s" % (len(KEY_AUTHORIZATION), KEY_AUTHORIZATION.encode()),
        b"HTTP/1.1 200 OK\r\n\r\n" + KEY_AUTHORIZATION.encode(),
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%s\r\n0\r\n\r\n"
        % (len(KEY_AUTHORIZATION), KEY_AUTHORIZATION.encode()),
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + KEY_AUTHORIZATION.encode(),
        b"HTTP/1.1 200 \r\nServer:a\r\nX: y\r\n folded\r\nEmpty:\r\n\r\n" + KEY_AUTHORIZATION.encode(),
    ],
    ids=["acme.sh with bare line feeds", "until the end", "chunked", "after an interim answer", "odd fields"],
)
async def test_answers_that_http_allows_are_read(nameserver: NameServer, answer: bytes) -> None:
    async with running_webserver(raw(answer)) as server:
        await validated(nameserver, server.port)


@pytest.mark.parametrize("coding", ["identity", "", "none", "UTF-8", "utf8", "7bit", "binary", "identity, identity"])
async def test_a_content_encoding_that_changes_nothing_is_none(nameserver: NameServer, coding: str) -> None:
    headers = (f"Content-Encoding: {coding}",)
    async with running_webserver(answering(KEY_AUTHORIZATION.encode(), "200 OK", *headers)) as server:
        await validated(nameserver, server.port)


@pytest.mark.requirement("SEC45")
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "identity, gzip", "gzip,none"])
async def test_a_compressed_body_is_told(nameserver: NameServer, coding: str) -> None:
    answer = answering(b"x", "200 OK", f"Content-Encoding: {coding}", "Content-Encoding: identity")
    assert "compressed" in (await failure_of(nameserver, answer)).problem.detail


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Security-Policy: " + "x" * 9_000],
        [f"X-{number}: value" for number in range(70)],
        ["X: a", " b", "\tc", "Y: " + "d" * 70, " " + "e" * 70],
        ["Set-Cookie: " + "x" * 3_000] * 4,
    ],
    ids=["9 kB in a line", "70 fields", "folded lines", "12 kB in four fields"],
)
async def test_a_large_head_within_the_total_bound_is_read(nameserver: NameServer, fields: list[str]) -> None:
    async with running_webserver(answering(KEY_AUTHORIZATION.encode(), "200 OK", *fields)) as server:
        await validated(nameserver, server.port)


@pytest.mark.requirement("M150", "SEC46")
async def test_another_body_fails_for_good_and_is_not_repeated(nameserver: NameServer) -> None:
    failed = await failure_of(nameserver, answering(SECRET))
    assert failed.problem.type == ProblemType.UNAUTHORIZED
    assert not failed.temporary
    assert "127.0.0.1" in failed.problem.detail
    assert f"http://{NAME}" in failed.problem.detail
    assert TOKEN in failed.problem.detail


@pytest.mark.requirement("M150")
@pytest.mark.parametrize("body", [KEY_AUTHORIZATION[:-1], f" {KEY_AUTHORIZATION}"], ids=["a prefix", "a leading space"])
async def test_almost_the_key_authorization_is_not_enough(nameserver: NameServer, body: str) -> None:
    failed = await failure_of(nameserver, answering(body.encode()))
    assert failed.problem.type == ProblemType.UNAUTHORIZED


@pytest.mark.parametrize(("status", "temporary"), [("404 Not Found", True), ("503 Busy", True), ("403 No", False)])
async def test_another_status_is_told_and_may_be_temporary(
    nameserver: NameServer, status: str, temporary: bool
) -> None:
    failed = await failure_of(nameserver, answering(SECRET, status))
    assert failed.problem.type == ProblemType.UNAUTHORIZED
    assert status[:3] in failed.problem.detail
    assert failed.temporary is temporary


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + SECRET), "longer than"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000), "longer than"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b"x" * 300), "longer than"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"), "its body is malformed"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"), "its body is malformed"),
        (
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"e" * 200 + b"\r\nx\r\n") * 100),
            "too many",
        ),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx"), "transfer coding"),
        (
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
            "transfer coding",
        ),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), "its head is malformed"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcdef"), "its head is malformed"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08"), "compressed"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 17000 + b"\r\n\r\n"), "too many bytes"),
        (
            raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 7000 + b"\r\nY: " + b"y" * 7000 + b"\r\nZ: " + b"y" * 7000),
            "too many bytes",
        ),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000 + b"\r\n"), "too many bytes"),
        (raw(b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n"), "malformed"),
        (raw(b"HTTP/1.1 200 OK\r\nX: y\0z\r\n\r\n"), "malformed"),
        (raw(b"HTTP/1.1 200 OK\r\nX: y\rz\r\n\r\n"), "malformed"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "not an HTTP/1.1 response"),
        (raw(b"HTTP/2 200\r\n\r\n"), "not an HTTP/1.1 response"),
        (raw(b"HTTP/1.1 099 x\r\n\r\n"), "its head is malformed"),
        (raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"), "its head is malformed"),
        (raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "interim"),
    ],
)
async def test_answers_that_are_not_what_we_read_are_incorrect(
    nameserver: NameServer, answer: Behaviour, complaint: str
) -> None:
    failed = await failure_of(nameserver, answer)
    assert failed.problem.type == ProblemType.INCORRECT_RESPONSE
    assert complaint in failed.problem.detail


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX: y", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc"],
)
async def test_an_answer_that_ends_too_early_is_a_connection_problem(nameserver: NameServer, answer: bytes) -> None:
    failed = await failure_of(nameserver, raw(answer))
    assert failed.problem.type == ProblemType.CONNECTION
    assert failed.temporary


@pytest.mark.requirement("SEC45")
async def test_a_server_that_sends_a_byte_now_and_then_is_given_up(nameserver: NameServer) -> None:
    begun = time.monotonic()
    drip = raw(b"HTTP/1.1 200 OK\r\n", *[b"X"] * 500, pause=0.02)
    failed = await failure_of(nameserver, drip, deadline=0.3)
    assert time.monotonic() - begun < 8
    assert failed.problem.type == ProblemType.CONNECTION
    assert "took longer than 0.3 seconds" in failed.problem.detail
    assert failed.temporary


@pytest.mark.requirement("SEC45")
async def test_an_endless_body_is_cut(nameserver: NameServer) -> None:
    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    failed = await failure_of(nameserver, endless)
    assert "longer than 256 bytes" in failed.problem.detail


async def test_a_refused_connection_names_address_and_port(nameserver: NameServer) -> None:
    async with running_webserver(answering(b"")) as server:
        port = server.port
    failed = await failure(nameserver, port)
    assert failed.problem.type == ProblemType.CONNECTION
    assert failed.problem.detail == f"Connecting to {NAME} failed: 127.0.0.1 port {port}: connection refused."
    assert failed.temporary


async def test_ipv6_is_tried_first_and_ipv4_when_that_fails(nameserver: NameServer) -> None:
    nameserver.records[NAME, "AAAA"] = ["::1"]
    settings_allow = (*LOOPBACK, ip_network("::1/128"))
    async with running_webserver(answering(KEY_AUTHORIZATION.encode())) as server:
        client = HTTPClient(
            resolver=Resolver((nameserver.address,)),
            addresses=AddressFilter(ValidationSettings(allow=settings_allow)),
            ports=PORTS | {server.port},
        )
        await HTTP01(client, port=server.port)(Identifier(type="dns", value=NAME), TOKEN, KEY_AUTHORIZATION)
    assert server.connections == 1


async def test_every_address_that_was_tried_is_told(nameserver: NameServer) -> None:
    nameserver.records[NAME, "A"] = ["127.0.0.1", "127.0.0.2"]
    async with running_webserver(answering(b"")) as server:
        port = server.port
    failed = await failure(nameserver, port)
    assert "127.0.0.1 port" in failed.problem.detail
    assert "127.0.0.2 port" in failed.problem.detail


async def test_a_connection_that_nobody_answers_is_given_up(nameserver: NameServer) -> None:
    # A socket whose backlog is full takes no more connections, and does not refuse them either.
    import socket  # noqa: PLC0415 - this test alone

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        await asyncio.sleep(0.05)
        failed = await failure(nameserver, port, connect=0.2, deadline=1.0)
        for filler in fillers:
            filler.close()
    assert failed.problem.type == ProblemType.CONNECTION
    assert failed.temporary


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ConnectionResetError(), "connection closed"), (OSError("no route"), "unreachable"), (TimeoutError(), "in time")],
)
async def test_the_kind_of_a_failed_connection_is_told(
    nameserver: NameServer, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(asyncio, "open_connection", fail)
    failed = await failure(nameserver, 80)
    assert failed.problem.detail.endswith(f"127.0.0.1 port 80: {reason}." if "time" not in reason else "in time.")
    assert failed.temporary


async def test_a_name_that_does_not_exist_is_a_dns_problem(nameserver: NameServer) -> None:
    nameserver.records.clear()
    failed = await failure(nameserver, 80)
    assert failed.problem.type == ProblemType.DNS
    assert failed.problem.detail == (f"The DNS lookup (A, AAAA) of {NAME} failed: the name does not exist (NXDOMAIN).")
    assert failed.temporary


@pytest.mark.requirement("155", "SEC43")
@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "100.100.100.200"],
)
async def test_denied_addresses_are_not_contacted(nameserver: NameServer, address: str) -> None:
    nameserver.records[NAME, "A"] = [address]
    client = HTTPClient(resolver=Resolver((nameserver.address,)), addresses=AddressFilter(ValidationSettings()))
    with pytest.raises(ValidationFailed) as caught:
        await HTTP01(client)(Identifier(type="dns", value=NAME), TOKEN, KEY_AUTHORIZATION)
    assert caught.value.problem.type == ProblemType.CONNECTION
    assert "may be contacted" in caught.value.problem.detail
    assert address in caught.value.problem.detail
    assert not caught.value.temporary


@pytest.mark.requirement("IP-M2", "IP-M3")
async def test_an_ip_identifier_is_not_resolved(nameserver: NameServer) -> None:
    async with running_webserver(answering(KEY_AUTHORIZATION.encode())) as server:
        check = validator(nameserver, server.port)
        await check(Identifier(type="ip", value="127.0.0.1"), TOKEN, KEY_AUTHORIZATION)
    assert nameserver.asked == []
    assert b"\r\nHost: 127.0.0.1\r\n" in server.heads[0]


@pytest.mark.requirement("IP-M2", "IP-M3")
async def test_an_ipv6_identifier_is_asked_for_in_brackets(nameserver: NameServer) -> None:
    async with running_webserver(answering(KEY_AUTHORIZATION.encode()), host="::1") as server:
        client = HTTPClient(
            resolver=Resolver((nameserver.address,)),
            addresses=AddressFilter(ValidationSettings(allow=(ip_network("::1/128"),))),
        )
        check = HTTP01(client, port=server.port)
        await check(Identifier(type="ip", value="::1"), TOKEN, KEY_AUTHORIZATION)
    assert nameserver.asked == []
    assert b"\r\nHost: [::1]\r\n" in server.heads[0]


@pytest.mark.requirement("SEC43", "SEC44")
@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://0.0.0.0/"]
)
async def test_an_address_does_not_redirect_to_a_denied_one(
    nameserver: NameServer, location: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running_webserver(redirecting(location)) as server:
        with pytest.raises(ValidationFailed) as caught:
            await validator(nameserver, server.port)(Identifier(type="ip", value="127.0.0.1"), TOKEN, KEY_AUTHORIZATION)
    assert BEHIND in caught.value.problem.detail
    assert location.split("/")[2].strip("[]") not in caught.value.problem.detail
    assert reason_in(caplog).startswith("the host of redirect 1 has no address that may be contacted")


@pytest.mark.requirement("SEC44")
async def test_an_address_may_redirect_to_itself(nameserver: NameServer) -> None:
    async def behave(head: bytes, writer: asyncio.StreamWriter) -> None:
        again = head.startswith(b"GET /again ")
        location = f"http://127.0.0.1:{server.port}/again"
        await (answering(KEY_AUTHORIZATION.encode()) if again else redirecting(location))(head, writer)

    async with running_webserver(behave) as server:
        await validator(nameserver, server.port)(Identifier(type="ip", value="127.0.0.1"), TOKEN, KEY_AUTHORIZATION)
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in server.heads[1]


@pytest.mark.requirement("SEC43")
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "100.100.100.200", "fd00:ec2::254", "::1"])
async def test_denied_addresses_are_not_contacted_as_identifiers_either(nameserver: NameServer, address: str) -> None:
    check = HTTP01.build(ValidationSettings(resolvers=(nameserver.address,)))
    with pytest.raises(ValidationFailed, match="has no address that may be contacted"):
        await check(Identifier(type="ip", value=address), TOKEN, KEY_AUTHORIZATION)


@pytest.mark.requirement("SEC45")
@pytest.mark.parametrize("headers", [("Content-Encoding: gzip",), ("Content-Encoding: br",), ()])
async def test_a_bomb_is_neither_unpacked_nor_taken_in(nameserver: NameServer, headers: tuple[str, ...]) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    async with running_webserver(answering(bomb, "200 OK", *headers)) as server:
        failed = await failure(nameserver, server.port)
    assert failed.problem.type == ProblemType.INCORRECT_RESPONSE
    assert "compressed" in failed.problem.detail if headers else "longer than 256 bytes" in failed.problem.detail
    assert b"Accept-Encoding: identity" in server.heads[0]


@pytest.mark.requirement("SEC45")
async def test_a_redirect_whose_body_has_no_end_is_followed_all_the_same(nameserver: NameServer) -> None:
    async def behave(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /again "):
            await answering(KEY_AUTHORIZATION.encode())(head, writer)
            return
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with running_webserver(behave) as server:
        await validated(nameserver, server.port)


@pytest.mark.requirement("SEC43")
async def test_a_name_that_is_rebound_between_check_and_use_gains_nothing(nameserver: NameServer) -> None:
    # The first answer is allowed, every later one is the address that an attacker wants us to contact.
    nameserver.rotate[NAME, "A"] = [["127.0.0.1"], ["127.0.0.9"]]
    async with (
        running_webserver(answering(KEY_AUTHORIZATION.encode())) as good,
        running_webserver(answering(SECRET), host="127.0.0.9", port=good.port) as inner,
    ):
        await validated(nameserver, good.port)
    assert inner.connections == 0
    assert [type_ for _, type_, _ in nameserver.asked].count("A") == 1


@pytest.mark.requirement("SEC43", "SEC44")
async def test_a_redirect_to_a_name_that_is_rebound_to_a_denied_address_is_not_followed(
    nameserver: NameServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    nameserver.rotate[NAME, "A"] = [["127.0.0.1"], ["169.254.169.254"]]
    async with running_webserver(redirecting("/again")) as server:
        failed = await failure(nameserver, server.port)
    assert BEHIND in failed.problem.detail
    assert "link-local" in reason_in(caplog)
    assert "169.254" not in failed.problem.detail + reason_in(caplog)


@pytest.mark.requirement("S149", "S149", "SEC44")
async def test_redirects_are_followed_and_looked_up_anew(nameserver: NameServer) -> None:
    nameserver.records["other.example.com", "A"] = ["127.0.0.1"]

    async def behave(head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split()[1].decode()
        if path == "/final?a=b":
            await answering(KEY_AUTHORIZATION.encode())(head, writer)
        elif path == "/relative":
            await redirecting("final?a=b#fragment", "308 Permanent")(head, writer)
        else:
            await redirecting(f"http://other.example.com:{server.port}/relative", "301 Moved")(head, writer)

    async with running_webserver(behave) as server:
        await validated(nameserver, server.port)
    assert f"Host: other.example.com:{server.port}\r\n".encode() in server.heads[1]
    assert ("other.example.com", "A", "udp") in nameserver.asked


@pytest.mark.requirement("SEC43", "SEC44", "SEC46")
@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://017700000001/",
        "http://localhost:22/",
        "http://web.example.com:6443/",
        "https://web.example.com:2379/",
        "ftp://web.example.com/",
        "file:///etc/passwd",
        "gopher://web.example.com/",
        "javascript:alert(1)",
        "http://user:password@web.example.com/",
        "http://web.example.com\\@169.254.169.254/",
        "http:///",
        "http://web.example.com:port/",
        "http://web.example.com:0/",
        "http://web.example.com:99999/",
        "http://[::1/",
        "http://web_server.example.com/",
        "/caf\xe9",
        "/with space",
        "/" + "x" * 3000,
    ],
)
async def test_redirects_to_elsewhere_are_refused_and_not_repeated(nameserver: NameServer, location: str) -> None:
    behaviour = raw(b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n")
    async with running_webserver(behaviour) as server:
        failed = await failure(nameserver, server.port)
        assert server.connections == 1
    assert failed.problem.type == ProblemType.INCORRECT_RESPONSE
    assert "redirects to" in failed.problem.detail
    assert location not in failed.problem.detail


async def test_a_redirect_without_a_location_is_told(nameserver: NameServer) -> None:
    failed = await failure_of(nameserver, answering(b"", "302 Found"))
    assert "redirects without a Location" in failed.problem.detail


@pytest.mark.requirement("SEC44")
@pytest.mark.parametrize("status", ["300 Choices", "303 See Other", "304 Not Modified"])
async def test_other_statuses_of_redirection_are_not_followed(nameserver: NameServer, status: str) -> None:
    failed = await failure_of(nameserver, redirecting("/again", status))
    assert failed.problem.type == ProblemType.UNAUTHORIZED


@pytest.mark.requirement("SEC44")
async def test_redirects_end_after_ten(nameserver: NameServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running_webserver(redirecting("/again")) as server:
        failed = await failure(nameserver, server.port)
    assert server.connections == 11
    assert BEHIND in failed.problem.detail
    assert "more than 10 times" in reason_in(caplog)


async def redirected_to_https(nameserver: NameServer, port: int) -> None:
    async with running_webserver(redirecting(f"https://{NAME}:{port}/x")) as server:
        client = HTTPClient(
            resolver=Resolver((nameserver.address,)),
            addresses=AddressFilter(ValidationSettings(allow=LOOPBACK)),
            ports=PORTS | {server.port, port},
            deadline=5,
        )
        await HTTP01(client, port=server.port)(Identifier(type="dns", value=NAME), TOKEN, KEY_AUTHORIZATION)


@pytest.mark.requirement("SEC44")
async def test_a_redirect_to_https_is_followed_whoever_has_issued_its_certificate(nameserver: NameServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("somebody.else.example").configure_cert(context)
    async with running_webserver(answering(KEY_AUTHORIZATION.encode()), tls=context) as secure:
        await redirected_to_https(nameserver, secure.port)


async def failed_behind_https(nameserver: NameServer, behaviour: Behaviour) -> ValidationFailed:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(NAME).configure_cert(context)
    async with running_webserver(behaviour, tls=context) as secure:
        with pytest.raises(ValidationFailed) as caught:
            await redirected_to_https(nameserver, secure.port)
    return caught.value


@pytest.mark.requirement("SEC45")
async def test_what_has_no_end_is_cut_behind_https_too(
    nameserver: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    await failed_behind_https(nameserver, endless)
    assert (
        reason_in(caplog)
        == "The response of the target of redirect 1 cannot be used: its body is longer than 256 bytes."
    )
    await failed_behind_https(nameserver, raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000))
    assert "its head takes too many bytes" in reason_in(caplog)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc"])
async def test_an_answer_that_ends_too_early_behind_https_is_noticed(
    nameserver: NameServer, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failed = await failed_behind_https(nameserver, raw(answer))
    assert reason_in(caplog) == "the target of redirect 1 closed the connection before it had answered."
    assert failed.temporary


async def test_a_failed_handshake_is_noticed(nameserver: NameServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SECRET)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(no_tls, "127.0.0.1", 0) as server:
        with pytest.raises(ValidationFailed) as caught:
            await redirected_to_https(nameserver, server.sockets[0].getsockname()[1])
    assert BEHIND in caught.value.problem.detail
    assert "handshake" in reason_in(caplog)


@pytest.mark.requirement("SEC46", "SEC85")
async def test_behind_a_redirect_every_failure_looks_alike(nameserver: NameServer) -> None:
    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)
        writer.close()

    targets: list[Behaviour] = [
        answering(SECRET),
        answering(b"", "404 Not Found"),
        answering(b"", "403 Forbidden"),
        answering(b"", "500 Broken"),
        answering(b"", "302 Found"),
        redirecting("ftp://elsewhere.example.com/"),
        redirecting("/x"),
        raw(b""),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        silent,
    ]
    nameserver.records["elsewhere.example.com", "A"] = ["127.0.0.1"]
    nameserver.records["denied.example.com", "A"] = ["169.254.169.254"]
    nameserver.rcodes["broken.example.com"] = "SERVFAIL"
    failures = []
    for target in targets:
        async with running_webserver(target) as there:
            failures.append(await failed_behind(nameserver, f"http://elsewhere.example.com:{there.port}/", there.port))
    closed = there.port
    failures += [
        await failed_behind(nameserver, f"{scheme}://{host}.example.com:{closed}/", closed)
        for scheme in ("http", "https")
        for host in ("elsewhere", "denied", "broken", "unknown")
    ]
    known = {(each.problem.type, each.problem.detail, each.temporary) for each in failures}
    assert len(known) == 1
    assert len(failures) == len(targets) + 8


async def failed_behind(nameserver: NameServer, location: str, port: int) -> ValidationFailed:
    """The failure of a validation whose host redirects to the location; its own port is left out of the detail."""
    async with running_webserver(redirecting(location)) as server:
        client = HTTPClient(
            resolver=Resolver((nameserver.address,)),
            addresses=AddressFilter(ValidationSettings(allow=LOOPBACK)),
            ports=PORTS | {server.port, port},
            deadline=0.5,
        )
        with pytest.raises(ValidationFailed) as caught:
            await HTTP01(client, port=server.port)(Identifier(type="dns", value=NAME), TOKEN, KEY_AUTHORIZATION)
    problem = caught.value.problem
    return ValidationFailed(
        ProblemType(problem.type),
        problem.detail.replace(f":{server.port}", ""),
        temporary=caught.value.temporary,
    )


@pytest.mark.requirement("SEC45")
async def test_proxies_of_the_environment_are_not_used(nameserver: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        running_webserver(answering(b"proxied")) as proxy,
        running_webserver(answering(KEY_AUTHORIZATION.encode())) as server,
    ):
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        await validated(nameserver, server.port)
    assert proxy.connections == 0


async def test_the_settings_make_a_validator(nameserver: NameServer) -> None:
    async with running_webserver(answering(KEY_AUTHORIZATION.encode())) as server:
        settings = ValidationSettings(resolvers=(nameserver.address,), http01_port=server.port, allow=LOOPBACK)
        await HTTP01.build(settings)(Identifier(type="dns", value=NAME), TOKEN, KEY_AUTHORIZATION)
