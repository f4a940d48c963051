"""The whole operator against an API server in memory: starting, watching, falling over, stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from e2e.cluster.ports import free_port
from kms.address import Address
from kms.resources.kept import KEPT_UNTIL
from kms.resources.kinds import AUTHORITIES, CONFIG_MAPS, CREDENTIALS, NAMESPACES, POLICIES, PROFILES, SECRETS
from kms.resources.meta import is_true
from kms_operator.kinds import WATCHED_KINDS
from kms_operator.listing import list_kind
from kms_operator.main import run
from kms_operator.settings import Intervals, OperatorSettings
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.discovery import discoverable_api
from tests.support.eventually import until
from tests.support.operated import RELEASE, authority, credential, namespace, policy, profile, secret
from tests.support.restored_etcd import Snapshot


def settings(api: FakeApiServer, folder: Path, *, namespaces: tuple[str, ...] = ()) -> OperatorSettings:
    return OperatorSettings(
        external_url="https://acme.example.com",
        namespace=RELEASE,
        watch_namespaces=namespaces,
        metrics_listen=Address("127.0.0.1", free_port()),
        kubeconfig=str(api.write_kubeconfig(folder / "kubeconfig")),
    )


@asynccontextmanager
async def operating(chosen: OperatorSettings, intervals: Intervals | None = None) -> AsyncIterator[asyncio.Task[int]]:
    """The operator as the command line runs it, in another thread; stopped at the end."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(run, chosen, stop=stop, intervals=intervals))
    try:
        yield task
    finally:
        stop.set()
        async with asyncio.timeout(40):
            assert await task == 0


def put_manifests(api: FakeApiServer) -> None:
    api.put(NAMESPACES, namespace("pki"))
    api.put(AUTHORITIES, authority())
    api.put(POLICIES, policy())
    api.put(PROFILES, profile())
    api.put(CREDENTIALS, credential())


def is_ready(api: FakeApiServer) -> bool:
    found = api.read(CREDENTIALS, "pki", "web"), api.read(PROFILES, "pki", "web")
    return all(each is not None and is_true(each.status.conditions, "Ready") for each in found)


async def probe(chosen: OperatorSettings, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{chosen.metrics_listen}{path}") as answer,
    ):
        return answer.status, await answer.text()


def watches(api: FakeApiServer) -> int:
    return len([each for each in api.requests if each.verb == "watch"])


def is_kept(api: FakeApiServer) -> bool:
    """Whether the operator has noticed that the credential is gone."""
    copies = (body for key, body in api.store.by_key.items() if key.name.startswith("eab-"))
    return all(KEPT_UNTIL in body["metadata"]["annotations"] for body in copies)


async def test_manifests_that_come_while_it_runs_are_reconciled_and_drift_is_repaired(tmp_path: Path) -> None:
    async with discoverable_api() as api, operating(chosen := settings(api, tmp_path)):
        await until(lambda: watches(api) >= 7, seconds=10)
        put_manifests(api)
        await until(lambda: is_ready(api), seconds=10)
        assert await probe(chosen, "/readyz") == (200, "ok\n")
        assert await probe(chosen, "/healthz") == (200, "ok\n")
        status, metrics = await probe(chosen, "/metrics")
        assert status == 200
        assert 'kms_operator_reconciles_total{kind="eabcredentials",result="done"}' in metrics
        assert "kms_operator_watching 1.0" in metrics
        api.remove(SECRETS, "pki", "web-acme")
        await until(lambda: api.read(SECRETS, "pki", "web-acme"))
        api.remove(CREDENTIALS, "pki", "web")
        await until(lambda: is_kept(api))


@pytest.mark.parametrize("change", ["edited", "deleted"])
async def test_a_published_root_that_is_changed_comes_back_soon(tmp_path: Path, change: str) -> None:
    """Availability is looked for once an hour here: what is there is looked at more often."""
    intervals = Intervals(optional=3600.0, optional_present=0.2)
    async with discoverable_api() as api:
        put_manifests(api)
        api.put(AUTHORITIES, authority(trust={"configMap": {"name": "example-ca"}}))
        async with operating(settings(api, tmp_path), intervals):
            await until(lambda: api.read(CONFIG_MAPS, "pki", "example-ca"), seconds=20)
            made = api.read(CONFIG_MAPS, "pki", "example-ca")
            assert made is not None
            if change == "deleted":
                api.remove(CONFIG_MAPS, "pki", "example-ca")
            else:
                api.put(CONFIG_MAPS, msgspec.structs.replace(made, data={"ca.crt": "theirs"}))
            await until(lambda: published(api) == made.data, seconds=10)


def published(api: FakeApiServer) -> dict[str, str] | None:
    found = api.read(CONFIG_MAPS, "pki", "example-ca")
    return found.data if found is not None else None


async def test_it_stops_on_sigterm_with_exit_code_0(tmp_path: Path) -> None:
    async with discoverable_api() as api:
        process = await started(settings(api, tmp_path))
        try:
            await until(lambda: watches(api) >= 7, seconds=20)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(40):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()


async def started(chosen: OperatorSettings) -> asyncio.subprocess.Process:
    source = (
        "import sys; from kms.address import Address; from kms_operator.main import run;"
        "from kms_operator.settings import OperatorSettings;"
        f"sys.exit(run(OperatorSettings({chosen.external_url!r}, {chosen.namespace!r},"
        f" metrics_listen={chosen.metrics_listen!r}, kubeconfig={chosen.kubeconfig!r})))"
    )
    return await asyncio.create_subprocess_exec(sys.executable, "-c", source, env=dict(os.environ))


async def test_it_waits_for_an_api_server_that_does_not_serve_our_kinds_yet(tmp_path: Path) -> None:
    async with discoverable_api() as api:
        put_manifests(api)
        api.unserved = {"certificatepolicies"}
        async with operating(chosen := settings(api, tmp_path)):
            await until(lambda: any(each.plural == "certificatepolicies" for each in api.requests))
            assert (await probe(chosen, "/readyz"))[0] == 503
            assert {each.plural for each in api.writes} == {"leases"}
            api.unserved = set()
            await until(lambda: is_ready(api), seconds=10)


async def test_a_list_that_is_refused_costs_that_list_only(tmp_path: Path) -> None:
    async with discoverable_api() as api:
        put_manifests(api)
        for kind in WATCHED_KINDS:
            api.fail_next("list", kind.plural, 429, retry_after=1)
        async with operating(settings(api, tmp_path)):
            await until(lambda: is_ready(api), seconds=30)
        lists = [each.plural for each in api.requests if each.verb == "list"]
        assert lists[: 2 * len(WATCHED_KINDS)] == [kind.plural for kind in WATCHED_KINDS for _ in ("refused", "listed")]


async def test_it_survives_that_the_api_server_goes_away_and_comes_back(tmp_path: Path) -> None:
    async with discoverable_api() as api, operating(settings(api, tmp_path)):
        await until(lambda: watches(api) >= 7, seconds=10)
        await api.stop()
        await asyncio.sleep(0.5)
        put_manifests(api)
        await api.start()
        await until(lambda: is_ready(api), seconds=20)


async def test_it_lists_again_what_it_missed_when_its_version_is_too_old(tmp_path: Path) -> None:
    async with discoverable_api() as api, operating(settings(api, tmp_path)):
        put_manifests(api)
        await until(lambda: is_ready(api), seconds=10)
        await until(lambda: watches(api) >= 7, seconds=10)
        api.mute = True
        api.remove(CREDENTIALS, "pki", "web")
        api.put(POLICIES, policy("new"))
        api.store.compact()
        api.mute = False
        api.drop_watches()
        await until(lambda: is_kept(api), seconds=15)


async def test_after_a_restore_of_etcd_it_reconciles_what_is_there(tmp_path: Path) -> None:
    async with discoverable_api() as api:
        put_manifests(api)
        async with operating(settings(api, tmp_path), Intervals(compare=0.2)):
            await until(lambda: is_ready(api), seconds=20)
            await until(lambda: watches(api) >= 7, seconds=20)
            snapshot = Snapshot(api)
            for number in range(50):
                api.put(POLICIES, policy(f"later-{number}"))
            api.remove(CREDENTIALS, "pki", "web")
            await until(lambda: is_kept(api), seconds=20)
            snapshot.restore(api)
            api.remove(SECRETS, "pki", "web-acme")
            await until(lambda: api.read(SECRETS, "pki", "web-acme"), seconds=20)
            before = watches(api)
            await until(lambda: watches(api) >= before + 7, seconds=30)
            api.put(POLICIES, policy("new"))
            await until(lambda: is_reconciled(api, "new"), seconds=20)
            assert not is_reconciled(api, "later-49")


def is_reconciled(api: FakeApiServer, name: str) -> bool:
    found = api.read(POLICIES, "pki", name)
    return found is not None and is_true(found.status.conditions, "Ready")


async def test_it_watches_again_when_kopf_has_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with discoverable_api() as api:
        api.broken_watches = 1
        async with operating(settings(api, tmp_path)):
            await until(lambda: "watches ended" in caplog.text, seconds=15)
            put_manifests(api)
            await until(lambda: is_ready(api), seconds=20)


async def test_a_stop_before_the_start_is_a_stop(tmp_path: Path) -> None:
    async with discoverable_api() as api:
        stop = threading.Event()
        stop.set()
        assert await asyncio.to_thread(run, settings(api, tmp_path), stop=stop) == 0


async def test_an_operator_of_one_namespace_asks_for_nothing_beyond_it(tmp_path: Path) -> None:
    async with discoverable_api() as api, operating(settings(api, tmp_path, namespaces=("pki", "missing"))):
        put_manifests(api)
        await until(lambda: is_ready(api), seconds=15)
        asked = {each.namespace for each in api.requests if each.plural not in {"namespaces", "events", ""}}
        assert asked <= {"pki", "missing", RELEASE}


async def test_without_a_cluster_it_says_so_and_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = OperatorSettings("https://acme.example.com", RELEASE, kubeconfig=str(tmp_path / "missing"))
    assert await asyncio.to_thread(run, chosen) == 1
    assert "the operator cannot run" in caplog.text


async def test_a_port_that_is_taken_is_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with discoverable_api() as api:
        chosen = settings(api, tmp_path)
        with socket.socket() as taken:
            taken.bind((chosen.metrics_listen.host, chosen.metrics_listen.port))
            taken.listen()
            assert await asyncio.to_thread(run, chosen) == 1


async def test_a_list_of_some_namespaces_is_complete_up_to_the_oldest_of_them() -> None:
    async with running_api() as api:
        for place in ("pki", "other", RELEASE):
            api.put(SECRETS, secret("x", place, labels={"app.kubernetes.io/managed-by": "kms-acme"}))
        cluster = await api.cluster()
        chosen = OperatorSettings("https://acme.example.com", RELEASE, watch_namespaces=("pki",))
        items = (await list_kind(cluster, SECRETS, chosen)).items
        assert sorted(each.metadata.namespace for each in items) == [RELEASE, "pki"]
