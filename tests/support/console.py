"""The console over a fake API server, and its pages as a client without a browser sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import aiohttp

from kms.clock import Clock
from kms_acme.console.gate import COOKIE
from kms_acme.console.server import running_console
from tests.support.apiserver import FakeApiServer
from tests.support.shown_cluster import AT

_VOID = frozenset({"meta", "link", "input", "br"})
_BLOCKS = frozenset({"td", "th", "li", "p", "caption", "option", "h1", "h2", "summary", "dt", "dd", "text", "rect"})
"""Elements with a gap behind them."""


@dataclass
class Element:
    """An element of a page: its attributes, and the text inside."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page:
    """A page: status, headers, HTML, and its elements."""

    status: int
    headers: dict[str, str]
    html: str
    elements: list[Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join("".join(each.text for each in self.elements if each.tag == "html").split())

    def all(self, tag: str) -> list[Element]:
        """The elements of that tag."""
        return [each for each in self.elements if each.tag == tag]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().tag == tag, f"</{tag}> closes another element"
        if tag in _BLOCKS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for each in self._open:
            each.text += data


def parse(html: str) -> list[Element]:
    """The elements of a page that is well-formed."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert not parser._open, f"<{parser._open[-1].tag}> is not closed"
    return parser.elements


class Visitor:
    """A client of the console, which has exchanged the token for the cookie."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.origin, _, rest = url.partition("//")[2].partition("/")
        self.root = f"http://{self.origin}/{rest.partition('/')[0]}"

    async def enter(self) -> None:
        """Get the cookie."""
        async with self.session.get(self.url, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()

    def enter_with(self, cookie: str) -> None:
        """Use the cookie that a browser got."""
        self.session.cookie_jar.update_cookies({COOKIE: cookie})

    async def get(self, path: str, **options: Any) -> Page:
        """A page, by its path below the console's own; /path is one of the whole host."""
        return await self.request("GET", path, **options)

    async def request(self, method: str, path: str, **options: Any) -> Page:
        """The answer to any request."""
        async with self.session.request(method, f"{self.root}/{path}", allow_redirects=False, **options) as answer:
            html = await answer.text()
            is_page = answer.content_type == "text/html"
            return Page(answer.status, dict(answer.headers), html, parse(html) if is_page else [])

    async def wait_for(
        self, path: str, condition: Callable[[Page], bool], *, seconds: float = 30, every: float = 0.02
    ) -> Page:
        """The page, once it is as it should be."""
        async with asyncio.timeout(seconds):
            while not condition(page := await self.get(path)):  # noqa: ASYNC110 - it is another program's
                await asyncio.sleep(every)
        return page

    async def settled(self, path: str = "", *, seconds: float = 30, every: float = 0.02) -> Page:
        """The page, once everything has been read."""
        return await self.wait_for(path, lambda page: "Still reading" not in page.text, seconds=seconds, every=every)


@asynccontextmanager
async def visiting(
    api: FakeApiServer, *, namespace: str | None = None, clock: Clock = lambda: AT, enter: bool = True
) -> AsyncIterator[Visitor]:
    """A visitor of a console for the API server, at a time shortly after what happened there."""
    cluster = await api.cluster()
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        running_console(
            cluster, namespace, port=0, about="all namespaces", clock=clock, objection=lambda _: None
        ) as console,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        visitor = Visitor(session, console.url)
        if enter:
            await visitor.enter()
        yield visitor
