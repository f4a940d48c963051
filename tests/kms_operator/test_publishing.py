"""Published roots by the loop: written, repaired, refused, withdrawn; and what tells whether their kinds can be had."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kms.cluster.codec import Listing
from kms.resources.core import ConfigMap
from kms.resources.kinds import (
    AUTHORITIES,
    BUNDLES,
    CLUSTER_ISSUERS,
    CLUSTER_TRUST_BUNDLES,
    CONFIG_MAPS,
    NAMESPACES,
    PROFILES,
)
from kms.resources.meta import ObjectMeta
from kms_operator.indexes import NOT_CHECKED
from kms_operator.kinds import OPTIONAL_KINDS, TRUST_KINDS
from kms_operator.optional_kinds import OptionalKinds
from kms_operator.settings import OperatorSettings
from tests.support.operated import RELEASE, SETTINGS, authority, namespace, profile
from tests.support.world import World, world

ROOT_HERE = {"configMap": {"name": "example-ca"}}


def data_of(running: World) -> dict[str, str] | None:
    found = running.api.read(CONFIG_MAPS, "pki", "example-ca")
    return found.data if found is not None else None


def current(running: World) -> Any:
    found = running.api.read(AUTHORITIES, "pki", "issuing")
    assert found is not None
    return found


async def publish(running: World, section: dict[str, Any] | None = ROOT_HERE) -> None:
    """Ask for it on an API server where all kinds can be had."""
    asking = authority(trust=section) if section else authority()
    running.api.put(AUTHORITIES, msgspec.structs.replace(asking, status=current(running).status))
    running.serve_optional_kinds()
    await running.reconcile()


async def test_a_root_is_published_repaired_and_withdrawn(running: World) -> None:
    await publish(running)
    assert running.reason(AUTHORITIES, "issuing", "TrustPublished") == "Published"
    made = data_of(running)
    assert made is not None
    assert made == {"ca.crt": current(running).status.certificate}

    running.api.remove(CONFIG_MAPS, "pki", "example-ca")
    running.controller.handle_list(CONFIG_MAPS, Listing((), str(running.api.store.version)))
    await running.settle()
    assert data_of(running) == made

    assert running.controller.needs_trust_kinds()
    await publish(running, None)
    assert data_of(running) is None
    assert not running.controller.needs_trust_kinds()


async def test_a_root_goes_after_its_ca(running: World) -> None:
    await publish(running)
    running.api.remove(AUTHORITIES, "pki", "issuing")
    await running.reconcile()
    assert data_of(running) is None


async def test_what_is_refused_keeps_neither_the_ca_nor_its_condition_from_being_written(running: World) -> None:
    running.api.fail_next("patch", CONFIG_MAPS.plural, status=403, times=100)
    await publish(running)
    assert running.reason(AUTHORITIES, "issuing", "TrustPublished") == "Forbidden"
    assert running.reason(AUTHORITIES, "issuing") == "Issued"
    assert data_of(running) is None


@pytest.mark.requirement("SEC56")
async def test_a_config_map_that_somebody_makes_at_the_same_moment_stays_his(running: World) -> None:
    await publish(running)
    running.api.remove(CONFIG_MAPS, "pki", "example-ca")
    running.controller.handle_list(CONFIG_MAPS, Listing((), str(running.api.store.version)))
    theirs = ConfigMap(metadata=ObjectMeta(namespace="pki", name="example-ca"), data={"ca.crt": "theirs"})
    running.api.put(CONFIG_MAPS, theirs)
    await running.settle()
    assert data_of(running) == {"ca.crt": "theirs"}
    assert running.reason(AUTHORITIES, "issuing", "TrustPublished") == "NotOurs"


# Which kinds can be had


async def optional_kinds(running: World, settings: OperatorSettings = SETTINGS) -> OptionalKinds:
    return OptionalKinds(settings, await running.api.cluster(), running.controller)


def unavailable(running: World) -> dict[str, str]:
    return {plural: each.reason for plural, each in running.controller.cache.unavailable.items()}


async def test_what_is_not_served_is_told_apart(running: World) -> None:
    running.api.unserved |= {each.plural for each in OPTIONAL_KINDS if each is not CONFIG_MAPS}
    await (await optional_kinds(running)).refresh(first=True)
    assert unavailable(running) == {
        "clusterissuers": "WaitingForCertManager",
        "issuers": "WaitingForCertManager",
        "bundles": "WaitingForTrustManager",
        "clustertrustbundles": "NotServed",
    }
    running.api.unserved.clear()
    await (await optional_kinds(running)).refresh(first=True)
    assert unavailable(running) == {}


async def test_a_kind_of_several_versions_is_had_in_the_first_that_is_served(running: World) -> None:
    v1, beta, _ = CLUSTER_TRUST_BUNDLES
    # What an API server says of a group that it serves in this version, but without the kind.
    running.api.fail_next("list", v1.plural, status=404)
    await (await optional_kinds(running)).refresh(first=True)
    assert running.controller.cache.served[v1.plural] is beta
    assert v1.plural not in unavailable(running)


async def test_what_may_not_be_listed_is_said_with_the_role_that_is_missing(running: World) -> None:
    running.api.fail_next("list", CONFIG_MAPS.plural, status=403)
    await (await optional_kinds(running)).refresh(first=True)
    found = running.controller.cache.unavailable[CONFIG_MAPS.plural]
    assert found.reason == "Forbidden"
    assert "the operator may not list configmaps; give it the ClusterRole kms-acme-trust" in found.message


async def test_an_api_server_that_fails_changes_nothing(running: World) -> None:
    running.api.fail_next("list", BUNDLES.plural, status=500)
    looking = await optional_kinds(running)
    assert not await looking.refresh(first=True), "it is not looked again soon"
    assert unavailable(running) == {BUNDLES.plural: NOT_CHECKED.reason}
    assert await looking.refresh(first=True)
    assert unavailable(running) == {}


async def test_what_is_missing_is_looked_for_more_often_where_somebody_asks_for_it(running: World) -> None:
    running.api.unserved |= {BUNDLES.plural, CLUSTER_ISSUERS.plural}
    looking = await optional_kinds(running)
    assert await looking.refresh(first=True)
    await publish(running)
    assert await looking.refresh(), "a ConfigMap does not wait for trust-manager"
    await publish(running, {"bundle": {"name": "example-ca"}})
    assert not await looking.refresh()
    running.api.unserved.remove(BUNDLES.plural)
    assert await looking.refresh()
    section = {"clusterIssuer": {"name": "acme"}, "solvers": [{"http01": {"ingress": {}}}]}
    running.api.put(PROFILES, profile(acme={"certManager": section}))
    await running.tell()
    assert not await looking.refresh()


@pytest.mark.requirement("SEC57")
async def test_what_holds_roots_is_listed_only_where_one_is_published_and_once_at_first(running: World) -> None:
    def listed() -> set[str]:
        asked = {each.plural for each in running.api.requests if each.verb == "list"}
        running.api.requests.clear()
        return asked & {each.plural for each in TRUST_KINDS}

    looking = await optional_kinds(running)
    await looking.refresh(first=True)
    assert listed() == {each.plural for each in TRUST_KINDS}
    await looking.refresh()
    assert listed() == set()
    await publish(running)
    running.api.requests.clear()
    await looking.refresh()
    assert listed() == {each.plural for each in TRUST_KINDS}


async def test_an_operator_of_a_few_namespaces_lists_nothing_of_the_whole_cluster(running: World) -> None:
    few = OperatorSettings(SETTINGS.external_url, RELEASE, watch_namespaces=("pki",))
    running.api.requests.clear()
    await (await optional_kinds(running, few)).refresh(first=True)
    assert {each.plural for each in running.api.requests} == {"issuers", "configmaps"}
    assert {each.namespace for each in running.api.requests} == {"pki"}


async def test_who_asks_first_for_what_was_not_there_has_it_looked_for_at_once(running: World) -> None:
    asking = authority(trust=ROOT_HERE)
    running.api.put(AUTHORITIES, msgspec.structs.replace(asking, status=current(running).status))
    await running.reconcile()
    assert running.controller.optional_kinds_wanted.is_set()
    running.controller.optional_kinds_wanted.clear()
    running.controller.enqueue_all()
    await running.settle()
    assert not running.controller.optional_kinds_wanted.is_set()


async def test_a_namespace_that_gets_the_label_gets_the_root() -> None:
    settings = OperatorSettings(SETTINGS.external_url, RELEASE, trust_from=("pki",))
    async with world(settings) as running:
        await running.reconcile()
        selector = {"matchLabels": {"trust": "yes"}}
        await publish(
            running, {"configMap": {"name": "example-ca", "namespaces": {"from": "Selector", "selector": selector}}}
        )
        assert running.reason(AUTHORITIES, "issuing", "TrustPublished") == "NoNamespaceSelected"
        running.api.put(NAMESPACES, namespace("team", trust="yes"))
        await running.reconcile()
        assert running.api.read(CONFIG_MAPS, "team", "example-ca") is not None
