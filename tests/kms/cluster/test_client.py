from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from kms.cluster.client import Cluster
from kms.cluster.errors import (
    ClusterError,
    Conflict,
    Gone,
    Invalid,
    Misconfigured,
    NotFound,
    Unavailable,
    Undecodable,
)
from kms.cluster.metrics import APIMetrics
from kms.resources.accounts import AccountStatus, ACMEAccount
from kms.resources.core import Namespace, Secret
from kms.resources.kinds import ACCOUNTS, NAMESPACES, SECRETS
from kms.resources.meta import ObjectMeta
from tests.support.accounts import account
from tests.support.apiobjects import ObjectKey
from tests.support.apiserver import FakeApiServer, Seen


def opened(stored: ACMEAccount) -> ACMEAccount:
    return msgspec.structs.replace(stored, status=AccountStatus(state="valid"))


async def test_what_is_created_can_be_read(api: FakeApiServer, cluster: Cluster) -> None:
    created = await cluster.create(ACCOUNTS, account("a"))
    assert created.metadata.uid
    assert await cluster.get(ACCOUNTS, "pki", "a") == created
    assert api.requests == [
        Seen("create", "acmeaccounts", "pki", "", ""),
        Seen("get", "acmeaccounts", "pki", "a", ""),
    ]


async def test_a_status_is_not_stored_on_create(cluster: Cluster) -> None:
    created = await cluster.create(ACCOUNTS, opened(account("a")))
    assert created.status == AccountStatus()


async def test_an_object_that_is_not_there_is_not_found(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match='"nobody" not found'):
        await cluster.get(ACCOUNTS, "pki", "nobody")


async def test_a_status_write_leaves_the_rest_and_a_plain_write_leaves_the_status(cluster: Cluster) -> None:
    created = await cluster.create(ACCOUNTS, account("a"))
    labelled = msgspec.structs.replace(created.metadata, labels={"x": "y"})
    status_only = await cluster.replace_status(ACCOUNTS, msgspec.structs.replace(opened(created), metadata=labelled))
    assert status_only.metadata.labels == {}
    relabelled = msgspec.structs.replace(status_only.metadata, labels={"x": "y"})
    replaced = await cluster.replace(ACCOUNTS, msgspec.structs.replace(created, metadata=relabelled))
    assert (replaced.metadata.labels, replaced.status.state) == ({"x": "y"}, "valid")


@pytest.mark.parametrize("wrong", [{"uid": "another"}, {"resource_version": "1"}])
async def test_a_delete_with_a_precondition_spares_what_has_changed(cluster: Cluster, wrong: dict[str, str]) -> None:
    await cluster.create(ACCOUNTS, account("a"))
    with pytest.raises(Conflict):
        await cluster.delete(ACCOUNTS, "pki", "a", **wrong)
    assert await cluster.get(ACCOUNTS, "pki", "a")


async def test_a_delete_with_preconditions_that_hold_deletes_once(cluster: Cluster) -> None:
    created = await cluster.create(ACCOUNTS, account("a"))
    metadata = created.metadata
    await cluster.delete(ACCOUNTS, "pki", "a", uid=metadata.uid, resource_version=metadata.resource_version)
    with pytest.raises(NotFound):
        await cluster.delete(ACCOUNTS, "pki", "a")


async def test_a_list_reads_all_pages_and_is_consistent(api: FakeApiServer, cluster: Cluster) -> None:
    for number in range(5):
        api.put(ACCOUNTS, account(f"a{number}"))
    listing = await cluster.list(ACCOUNTS, "pki", limit=2)
    assert [each.metadata.name for each in listing.items] == ["a0", "a1", "a2", "a3", "a4"]
    assert listing.resource_version == str(api.store.version)
    assert len(api.requests) == 3


async def test_pages_come_one_at_a_time_also_from_a_given_version(api: FakeApiServer, cluster: Cluster) -> None:
    for number in range(3):
        api.put(ACCOUNTS, account(f"a{number}"))
    pages = [len(each.items) async for each in cluster.list_pages(ACCOUNTS, limit=2, resource_version="0")]
    assert pages == [2, 1]


async def test_a_list_that_outlives_its_snapshot_is_gone(api: FakeApiServer, cluster: Cluster) -> None:
    for number in range(3):
        api.put(ACCOUNTS, account(f"a{number}"))
    pages = cluster.list_pages(ACCOUNTS, "pki", limit=2)
    await anext(pages)
    api.store.compact()
    with pytest.raises(Gone):
        await anext(pages)


async def test_selectors_choose(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a", labels={"x": "1"}))
    api.put(ACCOUNTS, account("b", labels={"x": "2"}))
    api.put(ACCOUNTS, account("c", namespace="other", labels={"x": "1"}))

    async def names(namespace: str | None = None, labels: str = "", fields: str = "") -> list[str]:
        listing = await cluster.list(ACCOUNTS, namespace, labels=labels, fields=fields)
        return [each.metadata.name for each in listing.items]

    assert await names(labels="x=1") == ["c", "a"]
    assert await names("pki", labels="x in (1, 2)") == ["a", "b"]
    assert await names("pki", fields="metadata.name=b") == ["b"]
    assert await names("nowhere") == []


async def test_apply_owns_its_fields_and_gives_up_those_that_it_leaves_out(cluster: Cluster) -> None:
    metadata = ObjectMeta(name="s", namespace="kms-acme")
    await cluster.apply(SECRETS, Secret(metadata=metadata, data={"a": b"1", "b": b"2"}), manager="kms-acme")
    applied = await cluster.apply(SECRETS, Secret(metadata=metadata, data={"a": b"3"}), manager="kms-acme")
    assert applied.data == {"a": b"3"}


async def test_apply_takes_plain_json_too_and_reaches_the_status(cluster: Cluster) -> None:
    await cluster.create(ACCOUNTS, account("a"))
    body = {"metadata": {"name": "a", "namespace": "pki"}, "status": {"state": "valid"}}
    assert (await cluster.apply(ACCOUNTS, body, manager="m", subresource="status")).status.state == "valid"


async def test_kinds_without_namespaces_have_none_in_their_path(api: FakeApiServer, cluster: Cluster) -> None:
    await cluster.create(NAMESPACES, Namespace(metadata=ObjectMeta(name="pki")))
    assert (await cluster.get(NAMESPACES, "", "pki")).metadata.name == "pki"
    assert api.requests[-1] == Seen("get", "namespaces", "", "pki", "")


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_change_the_path_is_never_sent(api: FakeApiServer, cluster: Cluster, name: str) -> None:
    for attempt in (
        cluster.delete(ACCOUNTS, "pki", name),
        cluster.get(ACCOUNTS, name, "a"),
        cluster.create(ACCOUNTS, account("a", namespace=name)),
    ):
        with pytest.raises(Invalid, match="no name"):
            await attempt
    assert api.requests == []


async def test_a_name_with_slashes_and_questions_stays_one_name(api: FakeApiServer, cluster: Cluster) -> None:
    for name in ("a/../../secrets/s", "a?watch=true", "a#b", "a%2Fb", "ü"):
        with pytest.raises(NotFound):
            await cluster.get(ACCOUNTS, "pki", name)
    assert {(each.verb, each.plural) for each in api.requests} <= {("get", "acmeaccounts")}


async def test_a_watch_tells_what_has_happened_since(api: FakeApiServer, cluster: Cluster) -> None:
    start = await cluster.version(ACCOUNTS)
    api.put(ACCOUNTS, account("a"))
    api.put(ACCOUNTS, opened(account("a")))
    api.remove(ACCOUNTS, "pki", "a")
    api.put(ACCOUNTS, account("elsewhere", namespace="other"))
    async with aclosing(cluster.watch(ACCOUNTS, "pki", resource_version=start)) as events:
        seen = [await anext(events) for _ in range(3)]
        api.send_bookmarks()
        seen.append(await anext(events))
    assert [each.type for each in seen] == ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    versions = [int(each.resource_version) for each in seen]
    assert versions == sorted(versions)


async def test_a_watch_that_is_cut_off_is_unavailable(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a"))
    async with aclosing(cluster.watch(ACCOUNTS, "pki", resource_version="100")) as events:
        await anext(events)
        api.drop_watches()
        with pytest.raises(Unavailable, match="watch acmeaccounts"):
            await anext(events)


async def test_a_watch_from_a_version_that_is_compacted_is_gone(api: FakeApiServer, cluster: Cluster) -> None:
    start = await cluster.version(ACCOUNTS)
    api.store.compact()
    with pytest.raises(Gone):
        async for _ in cluster.watch(ACCOUNTS, resource_version=start):
            pass


async def test_a_silent_watch_is_given_up(api: FakeApiServer) -> None:
    cluster = await api.cluster(silence=0.05)
    with pytest.raises(Unavailable):
        async for _ in cluster.watch(ACCOUNTS, resource_version=str(api.store.version)):
            pass


async def test_a_call_that_is_not_answered_in_time_is_unavailable(api: FakeApiServer) -> None:
    cluster = await api.cluster(deadline=0.05)
    api.put(ACCOUNTS, account("a"))
    api.fail_next("get", "acmeaccounts", 200, delay=1.0)
    with pytest.raises(Unavailable, match="get acmeaccounts: TimeoutError"):
        await cluster.get(ACCOUNTS, "pki", "a")


async def test_a_cut_connection_is_unavailable(api: FakeApiServer, cluster: Cluster) -> None:
    api.fail_next("create", "acmeaccounts", 0)
    with pytest.raises(Unavailable, match="create acmeaccounts"):
        await cluster.create(ACCOUNTS, account("a"))
    assert api.store.by_key == {}


async def test_a_write_whose_answer_is_lost_has_happened(api: FakeApiServer, cluster: Cluster) -> None:
    api.fail_next("create", "acmeaccounts", 0, done=True)
    with pytest.raises(Unavailable):
        await cluster.create(ACCOUNTS, account("a"))
    assert ObjectKey("acmeaccounts", "pki", "a") in api.store.by_key


async def test_an_api_server_that_is_down_is_unavailable_until_it_is_back(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a"))
    await api.stop()
    with pytest.raises(Unavailable):
        await cluster.get(ACCOUNTS, "pki", "a")
    await api.start()
    assert await cluster.get(ACCOUNTS, "pki", "a")


async def test_retry_after_reaches_the_caller(api: FakeApiServer, cluster: Cluster) -> None:
    api.fail_next("get", "acmeaccounts", 429, retry_after=7)
    with pytest.raises(Unavailable) as caught:
        await cluster.get(ACCOUNTS, "pki", "a")
    assert caught.value.retry_after == 7


async def test_a_redirect_is_not_followed(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a"))
    api.fail_next("get", "acmeaccounts", 302)
    with pytest.raises(ClusterError, match="injected"):
        await cluster.get(ACCOUNTS, "pki", "a")


async def test_an_object_that_does_not_fit_its_model_is_undecodable(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a"))
    del api.store.by_key[ObjectKey("acmeaccounts", "pki", "a")]["spec"]["key"]
    with pytest.raises(Undecodable, match="pki/a"):
        await cluster.get(ACCOUNTS, "pki", "a")


async def test_every_request_is_counted(api: FakeApiServer) -> None:
    registry = CollectorRegistry()
    cluster = await api.cluster(metrics=APIMetrics(registry, "server"))
    await cluster.create(ACCOUNTS, account("a"))
    with pytest.raises(NotFound):
        await cluster.get(ACCOUNTS, "pki", "b")
    api.fail_next("delete", "acmeaccounts", 0)
    with pytest.raises(Unavailable):
        await cluster.delete(ACCOUNTS, "pki", "a")
    async with aclosing(cluster.watch(ACCOUNTS, resource_version="100")) as events:
        await anext(events)
    for verb, status in (("create", 201), ("get", 404), ("delete", 0), ("watch", 200)):
        labels = {"program": "server", "verb": verb, "kind": "acmeaccounts"}
        assert registry.get_sample_value("kms_acme_api_requests_total", {**labels, "status": str(status)}) == 1
        assert 0 <= (registry.get_sample_value("kms_acme_api_request_duration_seconds_sum", labels) or -1) < 5


async def test_an_event_says_what_happened_to_whom(api: FakeApiServer, cluster: Cluster) -> None:
    stored = api.put(ACCOUNTS, account("a"))
    await cluster.create_event(
        ACCOUNTS,
        stored,
        type_="Warning",
        reason="Refused",
        action="Validate",
        note="ü" * 2000,
        controller="pki.kms.hanzo.ai/operator",
        instance="pod-1",
        time=datetime(2026, 11, 23, 14, 0, tzinfo=UTC),
    )
    (event,) = [body for key, body in api.store.by_key.items() if key.plural == "events"]
    assert event["metadata"]["namespace"] == "pki"
    assert event["regarding"]["uid"] == stored.metadata.uid
    assert event["eventTime"] == "2026-11-23T14:00:00.000000Z"
    assert len(event["note"].encode()) in range(1020, 1025)
    assert event["note"].endswith("ü…")


async def test_an_event_about_something_without_a_namespace_goes_to_default(
    api: FakeApiServer, cluster: Cluster
) -> None:
    stored = api.put(NAMESPACES, Namespace(metadata=ObjectMeta(name="pki")))
    await cluster.create_event(
        NAMESPACES,
        stored,
        type_="Normal",
        reason="Seen",
        action="Look",
        note="there it is",
        controller="pki.kms.hanzo.ai/operator",
        instance="pod-1",
        time=datetime(2026, 11, 23, 14, 0, tzinfo=UTC),
    )
    assert [key.namespace for key in api.store.by_key if key.plural == "events"] == ["default"]


async def test_a_cluster_connects_by_kubeconfig(api: FakeApiServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = api.write_kubeconfig(tmp_path_factory.mktemp("k") / "config")
    cluster = await Cluster.connect(kubeconfig=str(path), context="fake")
    api.tokens = {"test-token"}
    assert (await cluster.list(ACCOUNTS)).items == ()
    await cluster.close()


async def test_a_kubeconfig_that_is_not_there_is_a_mistake_of_configuration() -> None:
    with pytest.raises(Misconfigured, match="/nowhere/config does not exist"):
        await Cluster.connect(kubeconfig="/nowhere/config")
