"""The console in a real Chromium: every page, by keyboard alone, on a small screen, light and dark."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2e.support.chromium import Tab, browsing
from e2e.support.tools import CHROMIUM, required
from kms.resources.kinds import ORDERS
from kms.resources.meta import ObjectMeta
from tests.kms_acme.console.test_injection import HTML, poison
from tests.kms_acme.console.test_scale import visiting as visiting_many
from tests.support.apiserver import running_api
from tests.support.browsing import axe_or_skip, axe_violations, require_clean
from tests.support.console import Visitor, visiting
from tests.support.many_orders import ManyOrders
from tests.support.scene import fill_scene
from tests.support.shown_cluster import CLIENT, FAILED, SHOP, fill

pytestmark = [pytest.mark.browser, pytest.mark.requirement("P10")]

PAGES = {
    "overview": "",
    "certificates": "certificates",
    "orders": "orders?state=invalid",
    "order": f"orders/pki/{FAILED}",
    "authorities": "authorities",
    "profiles": "profiles",
    "profile": "profiles/pki/web?credential=pki/web",
    "accounts": "accounts",
    "account": f"accounts/pki/{CLIENT}",
    "try": "try?profile=pki/web&names=admin.apps.example.com",
}
SHOWN = {("overview", "light"), ("order", "light"), ("certificates", "dark")}
"""The pages of docs/images."""
FOCUSED = "document.activeElement.textContent.trim() || document.activeElement.id"


@asynccontextmanager
async def browser_at(visitor: Visitor, folder: Path) -> AsyncIterator[Tab]:
    """A browser that opens the printed address, as a person's does."""
    async with browsing(required(CHROMIUM), folder) as tab:
        await tab.open(visitor.url)
        yield tab


@pytest.fixture(scope="module")
def axe_script() -> str:
    return axe_or_skip()


async def test_every_page_in_light_and_dark_on_large_and_small_screens(tmp_path: Path, axe_script: str) -> None:
    pictures = os.environ.get("KMS_ACME_SCREENSHOTS")
    async with running_api() as api:
        fill_scene(api)
        async with visiting(api, enter=False) as visitor, browser_at(visitor, tmp_path) as tab:
            await tab.wait_for("!document.body.textContent.includes('Still reading')")
            found: list[tuple[str, str, str]] = []
            for name, path in PAGES.items():
                for scheme, width, height in (("light", 1100, 1000), ("dark", 360, 760)):
                    await tab.prefer(scheme)
                    await tab.resize(width, height)
                    await tab.open(f"{visitor.root}/{path}")
                    await tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true; 0")
                    found += [(path, scheme, each) for each in await axe_violations(tab, axe_script)]
                    assert await tab.evaluate("document.documentElement.scrollWidth") <= width, path
                    await require_clean(tab, visitor.origin, path)
                    if pictures is not None and (name, scheme) in SHOWN:
                        await tab.open(f"{visitor.root}/{path}")
                        await tab.screenshot(Path(pictures, f"console-{name}-{scheme}.png"))
            assert found == []


async def test_the_keyboard_alone_reaches_and_does_everything(tmp_path: Path) -> None:
    async with running_api() as api:
        fill(api)
        async with visiting(api, enter=False) as visitor, browser_at(visitor, tmp_path) as tab:
            visitor.enter_with(await cookie_of(tab))
            await visitor.settled()
            await tab.open(f"{visitor.root}/certificates")
            await tab.press("Tab")
            assert await tab.evaluate(FOCUSED) == "Skip to the content"
            assert await tab.evaluate("document.activeElement.getBoundingClientRect().left >= 0"), "it becomes visible"
            await tab.press("Enter")
            await tab.press("Tab")
            assert await tab.evaluate("document.activeElement.id") == "q"
            outline = await tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"
            await tab.type("shop.apps")
            await tab.press("Enter")
            await tab.wait_for("location.search.includes('q=shop.apps') && document.readyState === 'complete'")
            assert await tab.evaluate("document.querySelectorAll('section tbody th a').length") == 1
            # Every control of the page takes the focus, one after the other.
            wanted = await tab.evaluate(
                "document.querySelectorAll('a, input, select, textarea, button, summary').length"
            )
            reached = set()
            for _ in range(wanted + 10):
                await tab.press("Tab")
                reached.add(
                    await tab.evaluate(
                        "[...document.querySelectorAll('a, input, select, textarea, button, summary')]"
                        ".indexOf(document.activeElement)"
                    )
                )
            assert reached >= set(range(wanted))
            await tab.evaluate("document.querySelector('summary').focus()")
            await tab.press("Enter")
            assert await tab.evaluate("document.querySelector('details').open"), "the table of the picture"
            await tab.evaluate("document.querySelector('section tbody th a').focus()")
            await tab.press("Enter")
            await tab.wait_for("document.body?.textContent.includes('Certificate 5f3a910c was issued')")
            await require_clean(tab, visitor.origin, "orders")


async def test_changes_arrive_in_an_open_page_and_the_focus_stays(tmp_path: Path) -> None:
    async with running_api() as api:
        fill(api)
        async with visiting(api, enter=False) as visitor, browser_at(visitor, tmp_path) as tab:
            await tab.open(f"{visitor.root}/orders")
            await tab.wait_for("document.body.textContent.includes('Changes arrive by themselves')")
            await tab.evaluate("window.same = true; document.querySelector('tbody a').focus(); 0")
            order = api.read(ORDERS, "pki", SHOP)
            assert order is not None
            api.put(ORDERS, type(order)(metadata=ObjectMeta(namespace="pki", name="new"), spec=order.spec))
            await tab.wait_for("document.body.textContent.includes('1 to 4 of 4 orders')")
            assert await tab.evaluate("window.same"), "the page was not loaded again"
            assert await tab.evaluate("document.activeElement.tagName") == "A"
            # Nothing moves under the fingers of somebody who types.
            await tab.evaluate("document.getElementById('q').focus(); 0")
            await tab.type("half a na")
            api.remove(ORDERS, "pki", "new")
            await asyncio.sleep(3)
            assert await tab.evaluate("document.getElementById('q').value") == "half a na"
            await tab.evaluate("document.activeElement.blur(); 0")
            await tab.wait_for("document.body.textContent.includes('1 to 3 of 3 orders')")
            await require_clean(tab, visitor.origin, "orders")


async def test_html_of_strangers_runs_nowhere(tmp_path: Path) -> None:
    async with running_api() as api:
        fill(api)
        poison(api)
        async with visiting(api, enter=False) as visitor, browser_at(visitor, tmp_path) as tab:
            for path in ("", "certificates", "orders", "authorities", "profiles", "accounts", "try"):
                await tab.open(f"{visitor.root}/{path}")
                await tab.wait_for("document.body.textContent.includes('Changes arrive')")
                await require_clean(tab, visitor.origin, path)
            await tab.open(f"{visitor.root}/orders")
            assert HTML[:20] in await tab.evaluate("document.body.textContent")


async def test_another_site_gets_nothing(tmp_path: Path) -> None:
    async with running_api() as api:
        fill(api)
        async with (
            visiting(api, enter=False) as visitor,
            browser_at(visitor, tmp_path) as tab,
            running_api() as other,
        ):
            # Another program on this machine: another port of the same address, so the cookie's site is the same.
            await tab.open(f"{other.url}/api/v1/namespaces")
            script = f"fetch('{visitor.root}/', {{credentials: 'include'}}).then(() => 'read', () => 'refused')"
            assert await tab.evaluate(script) == "refused"
            assert await tab.evaluate("document.cookie") == ""


async def test_a_hundred_thousand_orders_make_no_large_page(tmp_path: Path) -> None:
    async with visiting_many(ManyOrders(100_000)) as visitor, browsing(required(CHROMIUM), tmp_path) as tab:
        await visitor.settled("orders?q=x.x", seconds=300, every=3)
        (cookie,) = visitor.session.cookie_jar
        await tab.call("Network.setCookie", name=cookie.key, value=cookie.value, url=f"{visitor.root}/")
        for path in ("", "certificates", "orders", "accounts"):
            await tab.open(f"{visitor.root}/{path}")
            assert await tab.evaluate("document.querySelectorAll('*').length") < 2_000, path
        await tab.open(f"{visitor.root}/certificates")
        assert "1 to 50 of 90,000 certificates." in await tab.evaluate(
            "document.body.textContent.replace(/\\s+/g, ' ')"
        )
        await require_clean(tab, visitor.origin, "certificates")


async def cookie_of(tab: Tab) -> str:
    """The cookie, which scripts of the page do not see."""
    found = await tab.call("Network.getCookies")
    return str(found["cookies"][0]["value"])
