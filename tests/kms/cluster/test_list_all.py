"""Every object of a kind, from an API server that answers in pages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest

from kms.cluster.client import Cluster
from kms.cluster.errors import Gone, Unavailable
from kms.cluster.list_all import list_all
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api, spoil

LARGE = 100_000
"""Octets of an object of which about 80 make a page."""


def listed(cluster: Cluster, **limits: float) -> AsyncGenerator[ACMEAccount, None]:
    """The accounts, all of which can be read."""
    return list_all(cluster, ACCOUNTS, on_unreadable=lambda unreadable: pytest.fail(str(unreadable)), **limits)  # type: ignore[arg-type]


def limits(api: FakeApiServer) -> list[int]:
    """How many objects each list asked for."""
    return [each.limit for each in api.requests if each.verb == "list"]


def filled(api: FakeApiServer, objects: int, *, octets: int = 43) -> list[str]:
    """Their names."""
    names = [f"a{number:04}" for number in range(objects)]
    for name in names:
        api.put(ACCOUNTS, account(name, thumbprint="t" * octets))
    return names


async def test_small_objects_come_in_large_pages_and_each_of_them_once() -> None:
    async with running_api() as api:
        names = filled(api, 2_600)
        found = [each.metadata.name async for each in listed(await api.cluster())]
        assert found == names
        assert limits(api) == [100, 2_000, 2_000]


async def test_pages_of_large_objects_have_fewer_of_them() -> None:
    async with running_api() as api:
        names = filled(api, 700, octets=LARGE)
        found = [each.metadata.name async for each in listed(await api.cluster())]
        assert found == names
        first, *others = limits(api)
        assert first == 100
        assert {limit * LARGE // 1_000_000 for limit in others} == {7}


@pytest.mark.requirement("SEC72")
async def test_a_page_that_would_be_too_long_is_not_read() -> None:
    async with running_api() as api:
        small = filled(api, 150)
        large = [f"b{number:04}" for number in range(400)]
        for name in large:
            api.put(ACCOUNTS, account(name, thumbprint="t" * 10_000))
        found = [each.metadata.name async for each in listed(await api.cluster(), octets=200_000)]
        assert found == small + large
        first, second, third, *_ = limits(api)
        assert first == 100
        assert second > 200  # as if all were small: before, up to 2,000 of 190 kB
        assert third == second // 4


async def test_what_does_not_come_after_four_attempts_is_an_error() -> None:
    async with running_api() as api:
        filled(api, 1)
        api.fail_next("list", ACCOUNTS.plural, 500, times=4)
        with pytest.raises(Unavailable):
            await anext(listed(await api.cluster(), pause=0.01))
        assert limits(api) == [100, 50, 50, 50]


async def test_a_snapshot_that_is_gone_is_not_asked_for_again() -> None:
    async with running_api() as api:
        filled(api, 501)
        found = listed(await api.cluster())
        await anext(found)
        api.fail_next("list", ACCOUNTS.plural, 410)
        with pytest.raises(Gone):
            async for _ in found:
                pass
        assert len(limits(api)) == 2


async def test_who_breaks_off_leaves_no_request_behind(caplog: pytest.LogCaptureFixture) -> None:
    async with running_api() as api:
        filled(api, 501)
        before = asyncio.all_tasks()
        found = listed(await api.cluster())
        await anext(found)
        await found.aclose()
        assert not {each for each in asyncio.all_tasks() - before if "_Pages" in repr(each)}
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.requirement("SEC82")
async def test_an_object_that_cannot_be_read_is_told_and_hides_no_other() -> None:
    async with running_api() as api:
        names = filled(api, 3)
        spoil(api, ACCOUNTS, names[1], "spec.thumbprint", 7)
        told: list[str] = []
        found = list_all(await api.cluster(), ACCOUNTS, on_unreadable=lambda each: told.append(each.metadata.name))
        assert [each.metadata.name async for each in found] == [names[0], names[2]]
        assert told == [names[1]]
