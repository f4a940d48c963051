"""The console reads with the rights of the person, and says what these do not allow."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from kms.resources.kinds import ORDERS
from tests.support.apiserver import FakeApiServer, spoil
from tests.support.console import visiting
from tests.support.shown_cluster import CLIENT, FAILED, SHOP

PLURALS = ("certificateauthorities", "certificatepolicies", "certificateprofiles", "eabcredentials", "acmeaccounts")


def forbid(api: FakeApiServer, verb: str, plural: str) -> None:
    api.fail_next(verb, plural, 403, times=1_000, message=f"{plural} is forbidden: User u cannot {verb} it")


@pytest.mark.requirement("P8")
async def test_what_may_not_be_read_is_said_and_the_rest_is_shown(api: FakeApiServer) -> None:
    forbid(api, "list", "acmeorders")
    forbid(api, "list", "events")
    async with visiting(api) as visitor:
        page = await visitor.settled()
        assert page.status == 200
        assert "You may not read ACMEOrders: acmeorders is forbidden: User u cannot list it." in page.text
        assert "You may not read Events: " in page.text
        assert "With -n NAMESPACE, the console reads one namespace only." in page.text
        assert "You may not read ACMEOrders" in (await visitor.get("certificates")).text
        assert "pki/issuing" in (await visitor.get("authorities")).text
        assert "You may not" not in (await visitor.get("authorities")).text


@pytest.mark.requirement("P8")
async def test_who_may_read_nothing_sees_pages_all_the_same(api: FakeApiServer) -> None:
    for plural in (*PLURALS, "acmeorders", "events"):
        forbid(api, "*", plural)
    async with visiting(api, namespace="pki") as visitor:
        page = await visitor.settled()
        assert page.text.count("You may not read") == 7
        assert "in namespace pki: " in page.text
        assert "With -n" not in page.text
        for path in ("certificates", "orders", "authorities", "profiles", "accounts", "try"):
            assert "You may not read" in (await visitor.get(path)).text, path
        for path in (f"orders/pki/{SHOP}", f"accounts/pki/{CLIENT}"):
            page = await visitor.get(path)
            assert (page.status, "You may not read this: " in page.text) == (200, True), page.text
        assert "You may not read this: " in (await visitor.get("try?profile=pki/web&names=a.example.com")).text


@pytest.mark.requirement("P8")
async def test_one_namespace_is_read_alone(api: FakeApiServer) -> None:
    async with visiting(api, namespace="pki") as visitor:
        await visitor.settled()
        assert {each.namespace for each in api.requests} == {"pki"}


@pytest.mark.requirement("P9")
async def test_changes_arrive_without_another_request_for_a_list(api: FakeApiServer) -> None:
    async with visiting(api) as visitor:
        await visitor.settled()
        assert FAILED in (await visitor.get("orders")).html
        lists = len([each for each in api.requests if each.verb == "list"])
        async with visitor.session.get(f"{visitor.root}/changes") as stream, asyncio.timeout(30):
            assert stream.content_type == "text/event-stream"
            assert (await stream.content.readline(), await stream.content.readline()) == (b"retry: 2000\n", b"\n")
            api.remove(ORDERS, "pki", FAILED)
            assert (await stream.content.readline()).startswith(b"data: ")
        assert FAILED not in (await visitor.get("orders")).html
        spoil(api, ORDERS, SHOP, "spec.expires", "never")
        page = await visitor.wait_for("orders", lambda page: "is left out" in page.text)
        assert f"ACMEOrder pki/{SHOP} is left out, since it cannot be read: spec.expires" in page.text
        assert len([each for each in api.requests if each.verb == "list"]) == lists


@pytest.mark.requirement("P9")
async def test_open_pages_are_bounded(api: FakeApiServer) -> None:
    async with visiting(api) as visitor, aiohttp.ClientSession(cookie_jar=visitor.session.cookie_jar) as session:
        streams = [await session.get(f"{visitor.root}/changes") for _ in range(32)]
        async with session.get(f"{visitor.root}/changes") as more:
            assert (more.status, more.headers["Retry-After"]) == (503, "60")
        for each in streams:
            each.close()
        async with asyncio.timeout(30):
            status = 503
            while status != 200:
                async with session.get(f"{visitor.root}/changes") as again:
                    status = again.status
                await asyncio.sleep(0.05)
