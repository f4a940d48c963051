"""`status.observedGeneration` never claims what was not done: Argo CD and Flux believe Ready once it agrees."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kms.resources.kinds import AUTHORITIES, CREDENTIALS, PROFILES, Kind
from kms.resources.meta import condition
from kms_operator.plan import carried_out
from kms_operator.reconcilers import certificate_authority, certificate_profile
from tests.support.operated import (
    NOW,
    authority,
    credential,
    entropy,
    policy,
    profile,
    ready_status,
    snapshot_of,
    stated,
)
from tests.support.world import World

ISSUERS: dict[str, Any] = {"certManager": {"issuers": {"name": "web"}}}
TRUST: dict[str, Any] = {"configMap": {"name": "example-ca"}}


def put(running: World, kind: Kind[Any], changed: Any) -> int:
    """Store the object with the status that it has; returns its generation."""
    known: Any = running.api.read(kind, "pki", changed.metadata.name)
    running.api.put(kind, changed if known is None else msgspec.structs.replace(changed, status=known.status))
    stored: Any = running.api.read(kind, "pki", changed.metadata.name)
    return int(stored.metadata.generation)


def seen(running: World, kind: Kind[Any], name: str, type_: str) -> tuple[int | None, str, int | None]:
    """The observed generation of the status, and status and observed generation of a condition."""
    stored: Any = running.api.read(kind, "pki", name)
    found = condition(stored.status.conditions, type_)
    assert found is not None
    return stored.status.observed_generation, found.status, found.observed_generation


@pytest.mark.parametrize(
    ("kind", "changed", "refused", "part"),
    [
        (PROFILES, profile(acme=ISSUERS), ("patch", "issuers"), "CertManagerIssuer"),
        (AUTHORITIES, authority(trust=TRUST), ("patch", "configmaps"), "TrustPublished"),
        (CREDENTIALS, credential(spec={"secretName": "other"}), ("create", "secrets"), "Ready"),
    ],
)
async def test_a_spec_of_which_a_part_is_refused_is_not_observed_until_it_is_done(
    running: World, kind: Kind[Any], changed: Any, refused: tuple[str, str], part: str
) -> None:
    running.serve_optional_kinds()
    name = changed.metadata.name
    stored: Any = running.api.read(kind, "pki", name)
    before = stored.status.observed_generation
    running.api.fail_next(*refused, 403, times=10**6)
    generation = put(running, kind, changed)
    await running.reconcile()
    await running.reconcile_all()
    assert before is not None
    assert before < generation
    assert seen(running, kind, name, part) == (before, "False", generation)
    running.api.succeed()
    await running.reconcile_all()
    assert seen(running, kind, name, part) == (generation, "True", generation)


async def test_a_new_resource_of_which_a_part_is_refused_has_observed_nothing(running: World) -> None:
    running.serve_optional_kinds()
    running.api.fail_next("patch", "issuers", 403, times=10**6)
    generation = put(running, PROFILES, profile("new", acme=ISSUERS))
    await running.reconcile()
    await running.reconcile_all()
    assert seen(running, PROFILES, "new", "Ready") == (0, "True", generation)


async def test_what_breaks_later_was_done(running: World) -> None:
    running.serve_optional_kinds()
    generation = put(running, AUTHORITIES, authority(trust=TRUST))
    await running.reconcile()
    running.api.fail_next("patch", "configmaps", 403, times=10**6)
    for key in [each for each in running.api.store.by_key if each.plural == "configmaps"]:
        running.api.store.by_key.pop(key)
    await running.reconcile_all()
    assert seen(running, AUTHORITIES, "issuing", "Ready") == (generation, "True", generation)


def test_a_profile_without_a_profile_that_it_offers_has_not_observed_its_spec() -> None:
    offers = {"profiles": [{"name": "short", "profileRef": {"name": "gone"}}]}
    ca = authority(status={**ready_status(), "chain": "the chain\n"})
    one = profile(acme=offers)
    plan: Any = certificate_profile.plan(one, snapshot_of(one, ca, policy()), now=NOW, entropy=entropy())
    assert (stated(plan).status, stated(plan, "ResolvedRefs").status) == ("True", "False")
    assert plan.status.observed_generation == 0


def test_a_resource_that_ready_says_to_be_impossible_is_observed() -> None:
    one = profile()
    plan: Any = certificate_profile.plan(one, snapshot_of(one, policy()), now=NOW, entropy=entropy())
    assert (stated(plan).status, plan.status.observed_generation) == ("False", one.metadata.generation)


def test_a_ca_without_a_chain_that_it_is_to_offer_has_not_observed_its_spec() -> None:
    one = authority()
    one = msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, cross_certificates=("nonsense",)))
    plan: Any = certificate_authority.plan(one, snapshot_of(one), now=NOW, entropy=entropy())
    assert (stated(plan).status, stated(plan, "AlternateChains").status) == ("True", "False")
    assert plan.status.observed_generation == 0


@pytest.mark.parametrize(("before", "observed"), [(None, 0), (0, 0), (2, 2), (3, 3), (99, 0)])
def test_a_generation_that_somebody_wrote_is_not_that_of_the_future(before: int | None, observed: int) -> None:
    assert carried_out(before, 3, complete=False) == observed
    assert carried_out(before, 3, complete=True) == 3
