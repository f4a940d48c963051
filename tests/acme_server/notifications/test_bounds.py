"""Thousands of receivers, one that never answers, an etcd that was restored, and a second leader."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from acme_server.notifications.delivery import GIVE_UP, Pace
from acme_server.notifications.progress import ProgressStore
from acme_server.notifications.receivers import Receivers
from kms.resources.core import Secret
from kms.resources.meta import ObjectMeta
from kms.resources.profiles import CertificateProfile
from tests.support.apiserver import running_api
from tests.support.eventually import until
from tests.support.loops import MeasuredLoop
from tests.support.notifying import NOW, QUICK, Bench, delivering, order, receiver
from tests.support.processor import slowness

MANY = 4_000


@pytest.mark.requirement("P15")
def test_no_step_of_the_loop_grows_with_the_number_of_receivers() -> None:
    profiles = [_profile(number) for number in range(MANY)]
    key = Secret(metadata=ObjectMeta(namespace="kms-acme", name="key"), data={"secret": b"k" * 32})
    found = Receivers(lambda: profiles, tuple, lambda _: key)

    pace = Pace(every=0.01, look=0.1, save=0.1)

    async def work() -> None:
        async with running_api() as api:
            bench = Bench(await api.cluster(), pace=pace, find_receivers=found)
            async with delivering(bench):
                await until(lambda: len(bench.progress.known) == MANY)
                bench.position = 5_000
                bench.put(order(4_000, "team-7"))
                await until(lambda: bench.told() == ["o4000"])
                await asyncio.sleep(0.5)

    loop = MeasuredLoop()
    gc.disable()  # a collection would have the objects of all tests in it
    try:
        loop.run_until_complete(work())
    finally:
        gc.enable()
        loop.close()
    assert loop.longest < 0.02 * slowness()


def _profile(number: int) -> CertificateProfile:
    text: dict[str, Any] = {
        "metadata": {"namespace": f"team-{number}", "name": "web", "uid": f"{number:08x}"[::-1]},
        "spec": {
            "issuerRef": {"name": "ca"},
            "policyRef": {"name": "web"},
            "enrollment": {"acme": {}},
            "notifications": {"url": f"https://team-{number}.example.com/events", "secretRef": {"name": "key"}},
        },
    }
    return msgspec.convert(text, CertificateProfile)


@pytest.mark.requirement("P15")
async def test_a_receiver_that_goes_while_it_is_told_something_ends_nothing() -> None:
    async with running_api() as api:
        bench = Bench(await api.cluster(), "pki", "other")
        bench.hanging = {"pki.example.com"}
        async with delivering(bench):
            bench.put(order(11))
            await until(lambda: bench.waiting)
            del bench.receivers[0]
            await asyncio.sleep(10 * QUICK.save)
            bench.released.set()
            bench.put(order(12, "other"))
            await until(lambda: bench.told() == ["o11", "o12"])
            await until(lambda: bench.progress.known.keys() == {"1-other"})


@pytest.mark.requirement("P15")
async def test_what_a_receiver_did_not_take_for_three_days_is_given_up_and_counted_and_the_rest_is_told() -> None:
    async with running_api() as api:
        bench = Bench(await api.cluster(), "pki")
        bench.failing = {"pki.example.com"}
        async with delivering(bench):
            for number in range(100):
                bench.put(order(11 + number))
            await until(lambda: bench.attempts >= 2)
            bench.now = NOW + GIVE_UP + timedelta(minutes=5)
            before = bench.attempts
            bench.put(order(200, issued_at=bench.now))
            await until(lambda: bench.progress.known["0-pki"].dropped == 100)
            assert bench.attempts < before + 20
            bench.failing.clear()
            await until(lambda: bench.told() == ["o200"])
        assert bench.progress.known["0-pki"].dropped == 100


@pytest.mark.requirement("P15")
async def test_after_a_restore_of_etcd_what_is_issued_is_told_and_nothing_a_second_time() -> None:
    async with running_api() as api:
        bench = Bench(await api.cluster(), "pki")
        bench.position = 500
        async with delivering(bench):
            bench.put(order(501))
            bench.position = 501
            await until(lambda: bench.told() == ["o501"])
            await until(lambda: bench.version() == 501)
            bench.position = None  # while all is listed again
            await asyncio.sleep(5 * QUICK.every)
            bench.put(order(301))
            await asyncio.sleep(5 * QUICK.every)
            bench.position = 310
            await until(lambda: bench.told() == ["o501", "o301"])
            await until(lambda: bench.version() == 310)


@pytest.mark.requirement("P15")
async def test_a_new_leader_waits_for_its_watch_and_only_then_believes_that_etcd_was_restored() -> None:
    async with running_api() as api:
        cluster = await api.cluster()
        former = Bench(cluster, "pki")
        former.position = 500
        async with delivering(former):
            await asyncio.sleep(10 * QUICK.save)
        lagging = Bench(cluster, "pki")
        lagging.position = 490
        lagging.put(order(480))
        async with delivering(lagging):
            await asyncio.sleep(10 * QUICK.every)
            lagging.position = 500
            lagging.put(order(510))
            lagging.position = 510
            await until(lambda: lagging.version() == 510)
        assert lagging.told() == ["o510"]
        restored = Bench(cluster, "pki", pace=Pace(every=0.005, look=60, save=0.02, behind=0.05))
        restored.position = 300
        restored.put(order(290, issued_at=NOW - timedelta(hours=5)))
        restored.put(order(299))
        async with delivering(restored):
            await until(lambda: restored.told() == ["o299"])
            await until(lambda: restored.version() == 300)


@pytest.mark.requirement("P15")
async def test_two_that_believe_to_lead_tell_everything_and_store_no_more_than_was_told() -> None:
    async with running_api() as api:
        one, other = Bench(await api.cluster(), "pki"), Bench(await api.cluster(), "pki")
        other.hanging = {"pki.example.com"}
        async with delivering(one), delivering(other):
            for each in (one, other):
                each.put(order(11))
                each.position = 11
            await until(lambda: one.version() == 11 and other.waiting)
            await asyncio.sleep(10 * QUICK.save)
        stored = ProgressStore(await api.cluster(), "kms-acme", "kms-acme")
        await stored.load()
        assert stored.known["0-pki"].version in {10, 11}
        assert one.told() == ["o11"]
        third = Bench(await api.cluster(), "pki")
        third.position = 12
        third.put(order(11))
        third.put(order(12))
        async with delivering(third):
            await until(lambda: "o12" in third.told())
    assert third.told() in (["o12"], ["o11", "o12"])


@pytest.mark.requirement("P15")
async def test_receivers_beyond_what_a_lease_holds_are_not_told_and_those_before_go_on() -> None:
    async with running_api() as api:
        bench = Bench(await api.cluster())
        bench.progress.maximum = 2
        bench.receivers = [receiver("0a", "a"), receiver("0b", "b")]
        async with delivering(bench):
            await until(lambda: bench.progress.known.keys() == {"0a", "0b"})
            bench.receivers = [receiver(f"0-{number}", f"new-{number}") for number in range(5)] + bench.receivers
            bench.receivers.append(receiver("1a", "elsewhere"))
            await until(lambda: "1a" in bench.progress.known)
            assert bench.progress.known.keys() == {"0a", "0b", "1a"}
            del bench.receivers[-3]
            await until(lambda: "0-0" in bench.progress.known)
            assert bench.progress.known.keys() == {"0-0", "0b", "1a"}
