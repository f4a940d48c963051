"""The server knows the labels of namespaces as they are: of all from a watch, of a few by reading them."""

from __future__ import annotations

import asyncio

import pytest

from acme_server.metrics import Metrics
from acme_server.namespaces import Namespaces
from kms.cluster.retry import Timing
from kms.resources.core import Namespace
from kms.resources.kinds import NAMESPACES
from kms.resources.meta import ObjectMeta
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import in_background, until


def put(api: FakeApiServer, name: str, **labels: str) -> None:
    api.put(NAMESPACES, Namespace(metadata=ObjectMeta(name=name, labels=labels)))


@pytest.mark.requirement("SEC78")
@pytest.mark.parametrize("names", [(), ("team-a", "team-b")], ids=["all", "two"])
async def test_labels_follow_the_namespaces_and_an_unknown_one_has_none(names: tuple[str, ...]) -> None:
    async with running_api() as api:
        put(api, "team-a", team="one")
        namespaces = Namespaces(await api.cluster(), names=names, pause=0.01)
        assert namespaces.labels_of("team-a") is None
        async with in_background(namespaces.run()):
            await until(namespaces.synced.is_set)
            assert namespaces.labels_of("team-a") == {"team": "one"}
            assert namespaces.labels_of("team-b") is None
            put(api, "team-a", team="two")
            put(api, "team-b")
            await until(lambda: namespaces.labels_of("team-a") == {"team": "two"})
            await until(lambda: namespaces.labels_of("team-b") == {})
            api.remove(NAMESPACES, "", "team-a")
            await until(lambda: namespaces.labels_of("team-a") is None)


async def test_labels_that_were_read_stay_while_the_api_server_does_not_answer() -> None:
    async with running_api() as api:
        put(api, "team-a", team="one")
        cluster = await api.cluster()
        api.fail_next("get", "namespaces", 403)
        namespaces = Namespaces(cluster, names=("team-a",), pause=0.01)
        async with in_background(namespaces.run()):
            await until(lambda: namespaces.labels_of("team-a") is not None)
            api.fail_next("get", "namespaces", 403, times=3)
            seen = len(api.requests)
            await until(lambda: len(api.requests) > seen + 4)
            assert namespaces.labels_of("team-a") == {"team": "one"}


@pytest.mark.requirement("SEC77")
@pytest.mark.parametrize("names", [(), ("team-a",)], ids=["all", "one"])
async def test_labels_that_have_not_been_received_for_half_a_minute_are_not_known(names: tuple[str, ...]) -> None:
    """A tenant who has lost the label meanwhile must not keep what it gave him."""
    now = 100.0

    async def hurried(_: float) -> None:
        await asyncio.sleep(0.01)

    async with running_api() as api:
        put(api, "team-a", team="one")
        timing = Timing(sleep=hurried, monotonic=lambda: now)
        cluster = await api.cluster(deadline=0.1)
        namespaces = Namespaces(cluster, names=names, pause=0.01, patience=30.0, timing=timing)
        async with in_background(namespaces.run()):
            await until(lambda: namespaces.labels_of("team-a") == {"team": "one"})
            await api.stop()
            put(api, "team-a")
            while not names and not namespaces.outage_seconds():
                now += 0.001  # the time moves on until the end of the watch is noticed
                await asyncio.sleep(0.001)
            now += 29.0
            assert namespaces.labels_of("team-a") == {"team": "one"}
            now += 2.0
            assert namespaces.labels_of("team-a") is None
            await api.start()
            await until(lambda: namespaces.labels_of("team-a") == {})


@pytest.mark.parametrize("names", [(), ("team-a",)], ids=["all", "one"])
async def test_the_number_of_known_namespaces_is_a_metric(names: tuple[str, ...]) -> None:
    async with running_api() as api:
        put(api, "team-a")
        namespaces, metrics = Namespaces(await api.cluster(), names=names, pause=0.01), Metrics()
        namespaces.report_to(metrics)
        async with in_background(namespaces.run()):
            await until(namespaces.synced.is_set)
            count = metrics.registry.get_sample_value("kms_acme_cache_objects", {"cache": "namespaces"})
            assert count == 1
            await until(lambda: namespaces.outage_seconds() == 0)
