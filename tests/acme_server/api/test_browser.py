"""The pages of the server in a real Chromium: light and dark, on large and small screens, and by keyboard."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from e2e.support.chromium import Tab, browsing
from e2e.support.tools import CHROMIUM, required
from tests.support.browsing import axe_or_skip, axe_violations, require_clean
from tests.support.domain import World
from tests.support.server import Server, running_server

pytestmark = [pytest.mark.browser, pytest.mark.requirement("P11")]

SIZES = (("light", 1100, 1000), ("dark", 360, 760))


@pytest.fixture(scope="module")
def axe_script() -> str:
    return axe_or_skip()


def bind(world: World) -> None:
    """A profile that needs a credential, and says what it is for."""
    world.configure(
        external_account_binding="Required",
        description="Certificates for the web servers of the company and for nothing else",
        website="https://example.com/pki",
        terms_of_service="https://example.com/tos",
        caa_identities=("ca.example.com",),
        challenges=("http-01", "dns-01", "tls-alpn-01"),
    )


async def test_every_page_in_light_and_dark_on_large_and_small_screens(tmp_path: Path, axe_script: str) -> None:
    found: list[tuple[str, str, str]] = []
    async with browsing(required(CHROMIUM), tmp_path) as tab:
        for listed in (False, True):
            async with running_server(partial(list_profiles, listed)) as server:
                if listed:
                    bind(server.world)
                for path in ("/", "/acme/pki/web/", "/acme/pki/web/directory"):
                    found += await violations(tab, server, path, axe_script)
    assert found == [], "\n".join(map(str, found))


def list_profiles(listed: bool, world: World) -> None:
    world.list_profiles = listed


async def violations(tab: Tab, server: Server, path: str, script: str) -> list[tuple[str, str, str]]:
    origin = f"{server.http.host}:{server.http.port}"
    found = []
    tab.requests.clear()
    for scheme, width, height in SIZES:
        await tab.prefer(scheme)
        await tab.resize(width, height)
        await tab.open(f"http://{origin}{path}")
        await tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true; 0")
        found += [(path, scheme, each) for each in await axe_violations(tab, script)]
        assert await tab.evaluate("document.documentElement.scrollWidth") <= width, (path, scheme)
        await require_clean(tab, origin, path)
    return found


async def test_the_keyboard_opens_a_guide_and_reaches_its_commands(tmp_path: Path) -> None:
    async with running_server() as server, browsing(required(CHROMIUM), tmp_path) as tab:
        bind(server.world)
        await tab.open(f"http://{server.http.host}:{server.http.port}/acme/pki/web/")
        tag = "document.activeElement.tagName"
        for _ in range(50):
            await tab.press("Tab")
            if await tab.evaluate(tag) == "SUMMARY":
                break
        await tab.press("Enter")
        assert await tab.evaluate("document.activeElement.parentElement.open")
        await tab.press("Tab")
        assert await tab.evaluate(tag) == "PRE"
        assert await tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
