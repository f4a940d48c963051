"""Orders that an earlier release has stored: today's schema takes their writes, and today's models read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.install import CRDS
from e2e.load.recording import load
from e2e.load.schema import SHIPPED
from e2e.load.schemas import CRD, PLURAL, WRITES, Schema, schema
from kms.cluster.codec import decode
from kms.resources.kinds import ORDERS
from kms.resources.orders import ACMEOrder, token_of, with_authorizations

NUMBER = 90
"""Of its group: no other test has it."""


@pytest.fixture(scope="module")
def earlier(installed: Cluster) -> Iterator[Schema]:
    """The kind as the earlier release installed it, in a group of its own."""
    found = schema(NUMBER, "earlier", SHIPPED / CRD, load(SHIPPED / WRITES))
    _apply(installed, found)
    yield found
    installed.kubectl("delete", "crd", found.crd["metadata"]["name"], "--wait=false")


def _apply(cluster: Cluster, found: Schema) -> None:
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(found.crd))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/{found.crd['metadata']['name']}")


def write(cluster: Cluster, found: Schema, version: int, stored: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Make one of the three writes; `stored` is the object before. Returns what is stored then."""
    made, body = found.writes[version]
    metadata = (
        body["metadata"]
        | {"namespace": namespace}
        | {key: stored["metadata"][key] for key in ("uid", "resourceVersion") if stored}
    )
    path = f"/apis/{found.group}/{found.version}/namespaces/{namespace}/{PLURAL}"
    verb = "create"
    if made.subresource:
        path, verb = f"{path}/{metadata['name']}{made.subresource}", "replace"
    written: dict[str, Any] = json.loads(
        cluster.kubectl(verb, "--raw", path, "--filename=-", stdin=json.dumps(body | {"metadata": metadata}))
    )
    return written


def managed(stored: dict[str, Any]) -> list[Any]:
    return [each["fieldsV1"] for each in stored["metadata"]["managedFields"]]


def test_an_order_of_an_earlier_release_goes_on_with_the_schema_of_today(
    installed: Cluster, namespace: str, earlier: Schema
) -> None:
    pending = write(installed, earlier, 0, {}, namespace)
    ready = write(installed, earlier, 1, pending, namespace)
    assert {"f:expires", "f:names"} <= managed(ready)[0]["f:spec"].keys()
    _apply(installed, schema(NUMBER, "today", CRDS / CRD, load(SHIPPED / WRITES)))
    valid = write(installed, earlier, 2, ready, namespace)
    assert [each["f:status"] for each in managed(valid) if "f:status" in each] == [{}], "one entry for all of it"
    assert valid["spec"] == pending["spec"]
    assert valid["metadata"]["generation"] == 1
    order = with_authorizations(decode(ORDERS, msgspec.json.encode(valid)))
    assert order.status.state == "valid"
    assert order.status.certificate == earlier.writes[2][1]["status"]["certificate"]
    assert order.status.authorizations[0].challenges[0].state == "valid"
    assert token_of(order.spec, 0, "dns-01") is not None


def test_the_schema_of_today_keeps_all_that_the_earlier_release_has_stored() -> None:
    for write in load(SHIPPED / WRITES):
        order = msgspec.json.decode(write.body, type=ACMEOrder)
        again = msgspec.json.decode(msgspec.json.encode(order))
        before = msgspec.json.decode(write.body)
        assert (again["spec"], again.get("status")) == (before["spec"], before.get("status"))


def test_the_api_server_counts_changes_of_a_spec(installed: Cluster, namespace: str, earlier: Schema) -> None:
    """The server relies on this count: it issues nothing for an order whose spec was changed."""
    pending = write(installed, earlier, 0, {}, namespace)
    assert not decode(ORDERS, msgspec.json.encode(pending)).was_changed
    _apply(installed, schema(NUMBER, "today", CRDS / CRD, load(SHIPPED / WRITES)))
    name, resource = pending["metadata"]["name"], f"{PLURAL}.{earlier.group}"
    here = (f"--namespace={namespace}", "--output=json", "--type=merge")
    for what, patch, changed in (
        ("labels", {"metadata": {"labels": {"a": "b"}}}, False),
        ("status", {"status": {"state": "invalid"}}, False),
        ("spec", {"spec": {"accountRef": {"name": "mallory"}}}, True),
    ):
        options = ("--subresource=status",) if what == "status" else ()
        written = installed.kubectl("patch", resource, name, *here, *options, f"--patch={json.dumps(patch)}")
        assert decode(ORDERS, written.encode()).was_changed is changed, what
