from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.api.problems import status_of
from acme_server.problems import Refused, Unavailable
from kms.resources.policies import DNSNameRules, PolicySpec
from kms.resources.profiles import CertificateContents, Enrollment
from tests.support.domain import NAMESPACE, PROFILE, World


async def test_a_profile_is_compiled_once_for_each_version_of_its_parts(world: World) -> None:
    first = world.profile
    assert (first.namespace, first.name, first.key) == (NAMESPACE, PROFILE, (NAMESPACE, PROFILE))
    assert first.order_lifetime == timedelta(hours=24)
    assert world.profile is first
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("x",))))
    second = world.profile
    assert second is not first
    assert second.policy != first.policy
    world.install_authority()
    assert world.profile is not second


async def test_a_profile_that_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(Refused) as caught:
        world.services.profiles.of(NAMESPACE, "other")
    assert status_of(caught.value) == 404


async def test_a_profile_without_acme_is_not_found(world: World) -> None:
    resource = world.profile.resource
    world.profiles.put(replace(resource, spec=replace(resource.spec, enrollment=Enrollment())))
    with pytest.raises(Refused) as caught:
        _ = world.profile
    assert status_of(caught.value) == 404


@pytest.mark.requirement("SEC56", "C6")
@pytest.mark.parametrize("kind", ["profiles", "policies", "authorities"])
async def test_a_cold_cache_is_no_reason_to_say_no(world: World, kind: str) -> None:
    getattr(world, kind).synced.clear()
    with pytest.raises(Unavailable):
        world.services.profiles.of(NAMESPACE, "other")


async def test_a_cache_that_hears_of_nothing_new_is_no_reason_to_say_no(world: World) -> None:
    world.profiles.silence = 1.0
    with pytest.raises(Unavailable):
        world.services.profiles.of(NAMESPACE, "other")
    assert world.profile  # what is known is good for an answer of "yes"


async def test_a_profile_that_is_not_ready_is_unavailable(world: World) -> None:
    world.configure(ready=False)
    with pytest.raises(Unavailable):
        _ = world.profile


@pytest.mark.requirement("SEC66")
@pytest.mark.parametrize(("kind", "name"), [("policies", "policy"), ("authorities", "ca")])
async def test_a_profile_whose_parts_are_missing_is_unavailable(world: World, kind: str, name: str) -> None:
    getattr(world, kind).remove(NAMESPACE, name)
    with pytest.raises(Unavailable):
        _ = world.profile


@pytest.mark.requirement("SEC66")
async def test_rules_that_make_no_sense_are_unavailable(world: World) -> None:
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("",))))
    with pytest.raises(Unavailable):
        _ = world.profile
    world.configure(contents=CertificateContents(duration="a while"))
    with pytest.raises(Unavailable):
        _ = world.profile
