"""`kms-acme check`: a directory that works, and every way in which one does not."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from kms_acme.check import CheckFailed, check, check_until
from kms_acme.cli import main

DIRECTORY = ("newNonce", "newAccount", "newOrder")


class Site:
    """An HTTPS server on loopback whose answers a test decides."""

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "ca.crt"
        self.status = 200
        self.nonce = "nonce"
        self.members: tuple[str, ...] = DIRECTORY
        self.body: bytes | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/directory"

    def directory(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({each: f"https://127.0.0.1:{self.port}/{each}" for each in self.members}).encode()


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(site.status)
            self.end_headers()
            self.wfile.write(site.directory())

        def do_HEAD(self) -> None:
            self.send_response(200)
            if site.nonce:
                self.send_header("Replay-Nonce", site.nonce)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nobody reads it."""

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(site.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    class Server(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust us goes away."""

    server = Server(("127.0.0.1", 0), Handler)
    # The handshake is the handler's business: where it fails in accept(), nobody closes the connection.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(Site(tmp_path)) as started:
        yield started


def test_a_directory_that_gives_nonces_works(site: Site) -> None:
    check(site.url, authority=site.authority)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": 404}, "/directory answered 404"),
        ({"status": 503, "body": b'{"detail": "Profile pki/web is not ready."}'}, "503: Profile pki/web is not ready"),
        ({"status": 502, "body": b"<html>"}, "/directory answered 502$"),
        ({"status": 502, "body": b"[]"}, "/directory answered 502$"),
        ({"body": b"<html>"}, "is not JSON"),
        ({"body": b"[]"}, "it lacks newNonce"),
        ({"members": ("newNonce",)}, "it lacks newNonce or newAccount or newOrder"),
        ({"nonce": ""}, "/newNonce sent no nonce"),
        ({"body": b'{"newNonce": "http://x/", "newAccount": "", "newOrder": ""}'}, "http://x/ is not an https URL"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_directory_is_said(site: Site, change: dict[str, object], complaint: str) -> None:
    for name, value in change.items():
        setattr(site, name, value)
    with pytest.raises(CheckFailed, match=complaint):
        check(site.url, authority=site.authority)


def test_a_server_that_is_not_trusted_or_not_there_did_not_answer(site: Site, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"did not answer: .*certificate verify failed.*--ca-certificate: ca\.crt of"):
        check(site.url, authority=None)
    other = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(CheckFailed, match="its CA is another one than that of --ca-certificate"):
        check(site.url, authority=other)
    with pytest.raises(CheckFailed, match="did not answer"):
        check("https://127.0.0.1:1/directory", authority=site.authority)


def test_it_is_tried_again_until_it_works(site: Site) -> None:
    site.status = 503
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        site.status = 200 if len(slept) == 3 else 503

    check_until(site.url, authority=site.authority, wait=60, sleep=sleep)
    assert len(slept) == 3


def test_it_is_not_tried_for_longer_than_it_may_be(site: Site) -> None:
    site.status = 503
    now = iter(range(100))
    with pytest.raises(CheckFailed, match="answered 503"):
        check_until(site.url, authority=site.authority, wait=5, sleep=lambda _: None, monotonic=lambda: next(now))
    assert next(now) == 6


def test_the_command_says_that_it_works(site: Site, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{site.url}\n")
    for given in ([site.url], ["--url-file", str(tmp_path / "url")]):
        result = CliRunner().invoke(main.main, ["check", *given, "--ca-certificate", str(site.authority)])
        assert (result.exit_code, result.output) == (0, f"{site.url} works: a directory and a nonce\n")


def test_the_command_ends_with_1_where_it_does_not(site: Site) -> None:
    site.status = 404
    result = CliRunner().invoke(main.main, ["check", site.url, "--ca-certificate", str(site.authority)])
    assert result.exit_code == 1
    assert "answered 404" in result.output
    result = CliRunner().invoke(main.main, ["check", "--url-file", "/none"])
    assert result.exit_code == 1
    assert "--url-file /none cannot be read: No such file" in result.output


@pytest.mark.parametrize("line", [["check"], ["check", "https://a", "--url-file", "b"]], ids=["neither", "both"])
def test_the_command_wants_one_url(line: list[str]) -> None:
    result = CliRunner().invoke(main.main, line)
    assert result.exit_code == 2
    assert "either URL or --url-file" in result.output
