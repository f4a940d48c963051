"""The pages for people: who gets them, what they say, and that nothing in them can act."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from acme_server.api.directory import wants_page
from kms.resources.meta import ObjectMeta
from tests.support.domain import NAMESPACE, World
from tests.support.server import Server, running_server

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
HOSTILE = """</p><script>alert(1)</script><img src=x onerror=alert(1)>"'&"""


class Parsed(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "".join(self.words)


@pytest.mark.parametrize("accept", [CHROME, FIREFOX, "text/html", "text/html;q=0.9, application/json;q=0.1"])
def test_browsers_want_the_page(accept: str) -> None:
    assert wants_page(accept)


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "application/json", JAVA, "application/json, text/html", "application/json, text/*;q=0.5", "text/plain",
     "text/html;q=0, */*", "application/jose+json", ";;,,=", "text/html;q=0.1, application/json"],
)  # fmt: skip
def test_programs_get_the_directory(accept: str) -> None:
    assert not wants_page(accept)


@pytest.mark.requirement("P11")
async def test_a_browser_gets_the_page_and_every_program_the_directory(server: Server) -> None:
    for path in ("/acme/pki/web/directory", "/acme/pki/web/"):
        page = await server.get(path, Accept=CHROME)
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        for accept in ({}, {"Accept": "application/json"}, {"Accept": JAVA}):
            directory = await server.get(path, **accept)
            assert directory.json["newOrder"] == f"{server.base}/new-order"
            assert (directory.headers["Content-Type"], directory.headers["Vary"]) == ("application/json", "Accept")
        assert (page.headers["Vary"], page.headers["Cache-Control"]) == ("Accept", "public, max-age=60")
        assert "Set-Cookie" not in page.headers
    assert (await server.get("/acme/pki/none/", Accept=CHROME)).status == 404


@pytest.mark.requirement("P11")
async def test_the_page_tells_how_to_enroll_and_what_to_trust(server: Server) -> None:
    server.world.configure(
        external_account_binding="Required",
        description="Certificates for web servers",
        website="https://example.com/pki",
        terms_of_service="https://example.com/tos",
        challenges=("http-01", "dns-01"),
    )
    page = Parsed((await server.get("/acme/pki/web/", Accept=CHROME)).text)
    for words in ("Certificates for web servers", f"{server.base}/directory", "KID-OF-YOUR-CREDENTIAL", "http-01"):
        assert words in page.text
    assert "dns-01 (" not in page.text  # no validator here
    links = {each["href"] for each in page.all("a")}
    assert {"https://example.com/pki", "https://example.com/tos"} < links
    assert {str(link)[-4:] for link in links if "acme.test" in str(link)} <= {".crt", ".crl"}
    authority = server.world.profile.authority.status.certificate
    assert authority is not None
    certificate = x509.load_pem_x509_certificate(authority.encode())
    assert certificate.fingerprint(SHA256()).hex(":").upper() in page.text
    titles = re.findall(r"<summary>([^<]*)", (await server.get("/acme/pki/web/", Accept=CHROME)).text)
    assert {"certbot", "Caddy", "cert-manager"} < set(titles)


@pytest.mark.requirement("P11")
async def test_nothing_in_a_page_can_act_whatever_a_profile_says(server: Server) -> None:
    server.world.configure(
        description=HOSTILE, website="javascript:alert(1)", terms_of_service='https://x/"onclick="alert(1)'
    )
    answer = await server.get("/acme/pki/web/", Accept=CHROME)
    page = Parsed(answer.text)
    assert HOSTILE in page.text
    assert {name for name, _ in page.elements}.isdisjoint({"script", "img", "iframe", "form", "link", "object", "base"})
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "src"}]
    assert {str(each["href"])[:8] for each in page.all("a")} <= {"https://", "http://a"}
    assert "javascript:alert(1)" in page.text
    policy = answer.headers["Content-Security-Policy"]
    style = re.search(r"<style>(.*)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.requirement("P11")
async def test_a_page_works_by_keyboard_on_a_small_screen_and_in_the_dark(server: Server) -> None:
    page = Parsed((await server.get("/acme/pki/web/", Accept=CHROME)).text)
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert len(page.all("summary")) == len(page.all("details"))
    assert {each["tabindex"] for each in page.all("pre")} == {"0"}
    assert "color-scheme: light dark" in page.text


async def test_a_page_is_made_once_and_anew_when_its_profile_changes(server: Server) -> None:
    first = (await server.get("/acme/pki/web/", Accept=CHROME)).text
    assert (await server.get("/acme/pki/web/", Accept=CHROME)).text == first
    server.world.configure(description="another one")
    assert "another one" in (await server.get("/acme/pki/web/", Accept=CHROME)).text


@pytest.mark.requirement("P11")
async def test_profiles_are_listed_only_where_the_administrator_says_so(server: Server) -> None:
    assert "pki/web" not in (await server.http.get("/")).headers
    assert "pki/web" not in await (await server.http.get("/")).text()


@pytest.mark.requirement("P11")
async def test_the_list_has_the_profiles_that_work() -> None:
    def configure(world: World) -> None:
        world.list_profiles = True
        world.configure(description="For web servers")
        known = world.profiles.get(NAMESPACE, "web")
        assert known is not None
        world.profiles.put(
            msgspec.structs.replace(
                known,
                metadata=ObjectMeta(namespace=NAMESPACE, name="broken", uid="broken"),
                status=type(known.status)(),
            )
        )

    async with running_server(configure) as server:
        page = Parsed(await (await server.http.get("/")).text())
    assert "pki/web" in page.text
    assert "For web servers" in page.text
    assert "broken" not in page.text
    assert f"{server.base}/directory" in {each["href"] for each in page.all("a")}
