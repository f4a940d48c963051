"""The API client and the informer against a real API server: what FakeApiServer imitates, and what it cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from acme_server.orders import transitions
from e2e.cluster.cluster import Cluster as RealCluster
from kms.clock import system_clock
from kms.cluster.change_feed import ChangeFeed
from kms.cluster.client import Cluster
from kms.cluster.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Unavailable,
)
from kms.cluster.informer import Informer
from kms.cluster.resource_version import newer
from kms.cluster.transport import METADATA
from kms.cluster.watch_list import watch_list
from kms.resources.accounts import AccountStatus, ACMEAccount
from kms.resources.core import Secret
from kms.resources.kinds import ACCOUNTS, ORDERS, SECRETS, Kind
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import ACMEOrder, OrderStatus, StoredProblem
from tests.support.accounts import account
from tests.support.acmeorders import order
from tests.support.eventually import in_background, until


@pytest.fixture
async def client(installed: RealCluster) -> AsyncIterator[Cluster]:
    connected = await Cluster.connect(kubeconfig=str(installed.kubeconfig))
    yield connected
    await connected.close()


def opened(stored: ACMEAccount, *contact: str) -> ACMEAccount:
    return msgspec.structs.replace(stored, status=AccountStatus(state="valid", contact=contact))


async def test_of_two_status_writes_from_the_same_version_one_loses(client: Cluster, namespace: str) -> None:
    created = await client.create(ACCOUNTS, opened(account("a", namespace)))
    assert created.status == AccountStatus()
    written = await client.replace_status(ACCOUNTS, opened(created))
    assert newer(written.metadata.resource_version, created.metadata.resource_version)
    with pytest.raises(Conflict, match="modified"):
        await client.replace_status(ACCOUNTS, opened(created, "mailto:a@example.com"))
    assert await client.get(ACCOUNTS, namespace, "a") == written


class FutureStatus(OrderStatus, frozen=True, kw_only=True):
    """The status of orders in a release to come."""

    future: str | None = None


class FutureOrder(ACMEOrder, frozen=True, kw_only=True):
    """An order of a release to come."""

    status: FutureStatus = FutureStatus()


async def test_a_strict_write_of_a_field_that_the_schema_lacks_is_refused_and_another_one_loses_it(
    client: Cluster, namespace: str
) -> None:
    kind = Kind(ORDERS.group, ORDERS.version, ORDERS.kind, ORDERS.plural, FutureOrder)
    metadata = ObjectMeta(name="future", namespace=namespace)
    spec = msgspec.structs.replace(order("future.example.com").spec, tokens=())
    created = await client.create(kind, FutureOrder(metadata=metadata, spec=spec))
    wanted = msgspec.structs.replace(created, status=FutureStatus(state="ready", future="told"))
    with pytest.raises(Invalid, match="unknown field"):
        await client.replace_status(kind, wanted, strict=True)
    assert await client.get(kind, namespace, "future") == created
    assert (await client.replace_status(kind, wanted)).status == FutureStatus(state="ready")
    stored = await client.get(ORDERS, namespace, "future")
    stored = msgspec.structs.replace(stored, status=OrderStatus(state="ready", chain_ref=LocalRef(name="a")))
    assert (await client.replace_status(ORDERS, stored, strict=True)).status.chain_ref == LocalRef(name="a")


@pytest.mark.requirement("SEC74")
async def test_metadata_comes_without_spec_and_status_by_field_and_in_pages(client: Cluster, namespace: str) -> None:
    for number in range(4):
        one = order(f"{number}.example.com")
        metadata = ObjectMeta(name=f"a{number}", namespace=namespace)
        spec = msgspec.structs.replace(one.spec, tokens=())
        await client.create(ORDERS, ACMEOrder(metadata=metadata, spec=spec))
    first = await client.get(ORDERS, namespace, "a0")
    failure = StoredProblem(type="unauthorized", detail="no")
    await client.replace_status(ORDERS, transitions.failed(first, failure, reason="Failed", now=datetime.now(UTC)))
    names, token = [], ""
    while True:
        page = await client.metadata_page(ORDERS, namespace, fields="status.state!=invalid", limit=2, token=token)
        names.append([each.metadata.name for each in page.items])
        token = page.continue_token
        if not token:
            break
    assert names == [["a1", "a2"], ["a3"]]
    raw = await client.raw_page(ORDERS, namespace, limit=1, accept=METADATA)
    assert isinstance(raw.items[0], msgspec.Raw)
    assert b"example.com" not in bytes(raw.items[0])
    assert (await client.page(ORDERS, namespace, fields="status.serialNumber=abc", limit=5)).items == ()


async def test_a_stream_has_the_objects_of_a_list_and_ends_at_a_version_to_watch_from(
    client: Cluster, namespace: str
) -> None:
    for number in range(4):
        await client.create(ACCOUNTS, account(f"a{number}", namespace))
    await client.delete(ACCOUNTS, namespace, "a2")
    listed = await client.list(ACCOUNTS, namespace)
    *events, end = [event async for event in watch_list(client, ACCOUNTS, namespace)]
    assert [event.type for event in events] == ["ADDED"] * 3
    assert sorted(event.object.metadata.name for event in events if event.object is not None) == ["a0", "a1", "a3"]
    assert all(event.object in listed.items for event in events)
    assert end.ends_initial_events
    assert not newer(listed.resource_version, end.resource_version)
    created = await client.create(ACCOUNTS, account("later", namespace))
    async with aclosing(client.watch(ACCOUNTS, namespace, resource_version=end.resource_version)) as changes:
        assert (await anext(changes)).object == created


async def test_a_write_that_changes_nothing_makes_no_new_version(client: Cluster, namespace: str) -> None:
    created = await client.create(ACCOUNTS, account("a", namespace))
    first = await client.replace_status(ACCOUNTS, opened(created))
    assert await client.replace_status(ACCOUNTS, first) == first


async def test_a_name_is_taken_once(client: Cluster, namespace: str) -> None:
    await client.create(ACCOUNTS, account("a", namespace))
    with pytest.raises(AlreadyExists, match='"a" already exists'):
        await client.create(ACCOUNTS, account("a", namespace))


async def test_a_write_without_a_version_is_refused_rather_than_unguarded(client: Cluster, namespace: str) -> None:
    await client.create(ACCOUNTS, account("a", namespace))
    with pytest.raises(Invalid, match="must be specified for an update"):
        await client.replace_status(ACCOUNTS, opened(account("a", namespace)))


async def test_an_object_that_was_created_anew_is_not_overwritten(client: Cluster, namespace: str) -> None:
    first = await client.create(ACCOUNTS, account("a", namespace))
    await client.delete(ACCOUNTS, namespace, "a", uid=first.metadata.uid)
    second = await client.create(ACCOUNTS, account("a", namespace))
    with pytest.raises(Conflict):
        await client.replace_status(ACCOUNTS, opened(first))
    mixed = msgspec.structs.replace(first.metadata, resource_version=second.metadata.resource_version)
    with pytest.raises(Conflict):
        await client.replace_status(ACCOUNTS, opened(msgspec.structs.replace(first, metadata=mixed)))


async def test_a_delete_with_preconditions_spares_what_has_changed(client: Cluster, namespace: str) -> None:
    first = await client.create(ACCOUNTS, account("a", namespace))
    await client.replace_status(ACCOUNTS, opened(first))
    with pytest.raises(Conflict):
        await client.delete(ACCOUNTS, namespace, "a", resource_version=first.metadata.resource_version)
    with pytest.raises(Conflict):
        await client.delete(ACCOUNTS, namespace, "a", uid="00000000-0000-0000-0000-000000000000")
    await client.delete(ACCOUNTS, namespace, "a", uid=first.metadata.uid)
    with pytest.raises(NotFound):
        await client.delete(ACCOUNTS, namespace, "a")


async def test_a_plain_write_leaves_the_status_and_what_it_does_not_name(client: Cluster, namespace: str) -> None:
    created = await client.replace_status(ACCOUNTS, opened(await client.create(ACCOUNTS, account("a", namespace))))
    labelled = msgspec.structs.replace(created.metadata, labels={"x": "y"})
    replaced = await client.replace(
        ACCOUNTS, msgspec.structs.replace(created, metadata=labelled, status=AccountStatus())
    )
    assert (replaced.metadata.labels, replaced.status) == ({"x": "y"}, created.status)


async def test_what_the_schema_refuses_is_invalid_and_names_the_field(client: Cluster, namespace: str) -> None:
    await client.create(ACCOUNTS, account("a", namespace))
    body = {"metadata": {"name": "a", "namespace": namespace}, "status": {"state": "nonsense"}}
    with pytest.raises(Invalid) as caught:
        await client.apply(ACCOUNTS, body, manager="test", subresource="status")
    assert [cause.field for cause in caught.value.causes] == ["status.state"]
    assert "nonsense" in caught.value.causes[0].message


async def test_apply_gives_up_what_it_leaves_out_and_asks_before_it_takes_over(client: Cluster, namespace: str) -> None:
    def secret(**data: bytes) -> Secret:
        return Secret(metadata=ObjectMeta(name="s", namespace=namespace), data=data)

    await client.apply(SECRETS, secret(a=b"1", b=bytes(range(256))), manager="one")
    applied = await client.apply(SECRETS, secret(b=bytes(range(256))), manager="one")
    assert applied.data == {"b": bytes(range(256))}
    with pytest.raises(Conflict, match="one"):
        await client.apply(SECRETS, secret(b=b"2"), manager="two", force=False)
    assert (await client.apply(SECRETS, secret(b=b"2"), manager="two")).data == {"b": b"2"}


async def test_apply_with_a_version_is_a_compare_and_swap(client: Cluster, namespace: str) -> None:
    created = await client.create(ACCOUNTS, account("a", namespace))
    body: dict[str, Any] = {
        "metadata": {"name": "a", "namespace": namespace, "resourceVersion": created.metadata.resource_version},
        "status": {"state": "valid"},
    }
    await client.apply(ACCOUNTS, body, manager="one", subresource="status")
    with pytest.raises(Conflict):
        await client.apply(ACCOUNTS, body | {"status": {"state": "revoked"}}, manager="one", subresource="status")


async def test_a_list_is_read_page_by_page(client: Cluster, namespace: str) -> None:
    for number in range(5):
        await client.create(ACCOUNTS, account(f"a{number}", namespace, labels={"odd": str(number % 2)}))
    listing = await client.list(ACCOUNTS, namespace, limit=2)
    assert [each.metadata.name for each in listing.items] == [f"a{number}" for number in range(5)]
    assert [len(page.items) async for page in client.list_pages(ACCOUNTS, namespace, limit=2)] == [2, 2, 1]
    odd = await client.list(ACCOUNTS, namespace, labels="odd=1")
    assert [each.metadata.name for each in odd.items] == ["a1", "a3"]
    assert [each.metadata.name for each in (await client.list(ACCOUNTS, fields="metadata.name=a4")).items] == ["a4"]


async def test_a_kind_that_nobody_serves_is_unavailable(client: Cluster, namespace: str) -> None:
    nobody = Kind(group="nobody.example.com", version="v1", kind="Nothing", plural="nothings", model=ACMEAccount)
    with pytest.raises(Unavailable, match="does not serve this kind"):
        await client.get(nobody, namespace, "a")


async def test_who_has_no_rights_is_forbidden(cluster: RealCluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "nobody", f"--namespace={namespace}")
    nobody = await Cluster.connect(kubeconfig=str(cluster.kubeconfig_for("nobody", namespace)))
    with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:nobody"):
        await nobody.list(SECRETS, namespace)
    await nobody.close()


async def test_a_token_that_is_not_taken_is_unavailable(cluster: RealCluster, namespace: str, tmp_path: Any) -> None:
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": "not-a-token"}}]
    (tmp_path / "config").write_text(json.dumps(config))
    stranger = await Cluster.connect(kubeconfig=str(tmp_path / "config"))
    with pytest.raises(Unavailable, match="Unauthorized") as caught:
        await stranger.get(SECRETS, namespace, "a")
    assert "not-a-token" not in str(caught.value)
    await stranger.close()


async def test_an_event_is_shown_with_its_object(client: Cluster, cluster: RealCluster, namespace: str) -> None:
    stored = await client.create(ACCOUNTS, account("a", namespace))
    await client.create_event(
        ACCOUNTS,
        stored,
        type_="Warning",
        reason="Refused",
        action="Validate",
        note="The name is not allowed. " * 60,
        controller="pki.kms.hanzo.ai/operator",
        instance="pod-1",
        time=datetime.now(UTC),
    )
    assert "The name is not allowed" in cluster.kubectl("describe", "acmeaccount", "a", f"--namespace={namespace}")


async def test_a_watch_tells_what_has_happened_in_order(client: Cluster, namespace: str) -> None:
    start = await client.version(ACCOUNTS, namespace)
    created = await client.create(ACCOUNTS, account("a", namespace))
    written = await client.replace_status(ACCOUNTS, opened(created))
    await client.delete(ACCOUNTS, namespace, "a")
    async with aclosing(client.watch(ACCOUNTS, namespace, resource_version=start)) as events:
        seen = [await anext(events) for _ in range(3)]
    assert [(each.type, each.object) for each in seen[:2]] == [("ADDED", created), ("MODIFIED", written)]
    assert seen[2].type == "DELETED"
    # The event of a deletion carries the version of the deletion: what tells a late answer from a new object.
    assert newer(seen[2].resource_version, written.metadata.resource_version)


@pytest.mark.soak
async def test_a_quiet_watch_is_given_bookmarks_before_it_is_taken_for_dead(client: Cluster, namespace: str) -> None:
    start = await client.version(ACCOUNTS, namespace)
    async with aclosing(client.watch(ACCOUNTS, namespace, resource_version=start)) as events:
        assert (await anext(events)).type == "BOOKMARK"


async def test_informer_and_follower_outlive_the_api_server(
    client: Cluster, cluster: RealCluster, namespace: str
) -> None:
    before = await client.create(ACCOUNTS, account("before", namespace))
    deleted = await client.create(ACCOUNTS, account("deleted", namespace))
    heard: list[str] = []
    informed = Informer(client, ACCOUNTS, namespaces=[namespace])
    following = ChangeFeed(
        client,
        ACCOUNTS,
        on_change=lambda each, _gone: heard.append(each.metadata.name),
        on_unreadable=lambda each, _gone: heard.append(str(each)),
        on_gap=lambda: heard.append("gap"),
    )
    async with in_background(informed.run()), in_background(following.run()):
        await informed.synced.wait()
        await following.following.wait()
        assert informed.get(namespace, "before") == before
        cluster.stop_apiserver()
        with pytest.raises(Unavailable):
            await client.get(ACCOUNTS, namespace, "before")
        cluster.start_apiserver()
        await client.delete(ACCOUNTS, namespace, "deleted")
        after = await client.create(ACCOUNTS, account("after", namespace))
        await until(lambda: informed.get(namespace, "after") == after, seconds=60)
        await until(lambda: informed.get(namespace, "deleted") is None, seconds=10)
        await until(lambda: {"after", "deleted"} <= set(heard) or heard.count("gap") > 1, seconds=60)
        assert informed.idle_seconds() < 60
        # A new API server's memory begins where it began: whoever comes from before must list again.
        with pytest.raises(Gone):
            async for _ in client.watch(ACCOUNTS, namespace, resource_version=deleted.metadata.resource_version):
                pass
        informed.put(deleted)
        assert informed.get(namespace, "deleted") is None


@pytest.mark.requirement("P14")
async def test_the_server_may_continue_an_event_as_a_series(
    installed: RealCluster, client: Cluster, namespace: str
) -> None:
    regarding = await client.create(ACCOUNTS, account("a", namespace))
    server = await Cluster.connect(kubeconfig=str(installed.kubeconfig_for("kms-acme-server", "kms-acme")))
    now = system_clock()
    await server.create_event(
        ACCOUNTS,
        regarding,
        type_="Warning",
        reason="Test",
        action="Test",
        note="a note",
        controller="pki.kms.hanzo.ai/server",
        instance="server-0",
        time=now,
        name="a.series",
    )
    await server.continue_event(namespace, "a.series", count=7, time=now)
    with pytest.raises(NotFound):
        await server.continue_event(namespace, "gone", count=7, time=now)
    await server.close()
    listed = json.loads(installed.kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "json"))
    (event,) = (each for each in listed["items"] if each["metadata"]["name"] == "a.series")
    assert (event["series"]["count"], event["note"]) == (7, "a note")


async def test_while_the_api_server_starts_nothing_is_said_to_be_missing(
    client: Cluster, installed: RealCluster, namespace: str
) -> None:
    created = await client.create(ACCOUNTS, account("a", namespace))
    server = await Cluster.connect(kubeconfig=str(installed.kubeconfig_for("kms-acme-server", "kms-acme")))
    answers: list[ACMEAccount | ClusterError] = []

    async def ask() -> None:
        while True:
            try:
                answers.append(await server.get(ACCOUNTS, namespace, "a"))
            except ClusterError as error:
                answers.append(error)

    async with in_background(ask()):
        await asyncio.to_thread(installed.stop_apiserver)
        await asyncio.to_thread(installed.start_apiserver)
        await until(lambda: answers and answers[-1] == created, seconds=30)
    await server.close()
    # Before it has read the RBAC rules, an API server may forbid what is allowed; but it never denies that it is there.
    assert {type(each) for each in answers} - {Forbidden} == {ACMEAccount, Unavailable}
