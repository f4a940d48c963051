from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.api.problems import status_of
from acme_server.problems import Refused, Unavailable
from kms.resources.meta import Condition
from kms.resources.policies import DNSNameRules, PolicySpec
from kms.resources.profiles import CertificateContents, Enrollment
from kms.resources.retained import IN_USE
from tests.support.acme import ClientKey
from tests.support.domain import NAMESPACE, PROFILE, World
from tests.support.server import Server


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


@pytest.mark.requirement("SEC72")
async def test_a_policy_that_is_kept_by_its_identity_is_unavailable_and_refuses_no_name(world: World) -> None:
    """The event that the profile is ready may come before the one that its policy is in use."""
    policy = world.policies.get(NAMESPACE, "policy")
    assert policy is not None
    unused = Condition(
        type=IN_USE, status="False", reason="NotReferenced", message="", last_transition_time=world.clock()
    )
    generation = policy.metadata.generation
    status = replace(policy.status, observed_generation=generation, dns_names="", conditions=(unused,))
    world.policies.put(replace(policy, status=status))
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


@pytest.mark.requirement("SEC76")
@pytest.mark.parametrize(
    "acme",
    [
        {"external_account_binding": "Optional"},
        {"external_account_binding": "Disabled"},
        {"external_account_binding": "Required", "ownership_validation": "Skipped"},
    ],
)
async def test_an_open_profile_is_served_only_with_the_consent_of_the_operator(
    world: World, acme: dict[str, Any]
) -> None:
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("a.example.com",))), **acme)
    allowed = world.profile.resource
    ready, consent = allowed.status.conditions

    def stated(*conditions: Condition, generation: int = 0) -> None:
        metadata = replace(allowed.metadata, generation=generation)
        world.profiles.put(replace(allowed, metadata=metadata, status=replace(allowed.status, conditions=conditions)))

    for conditions in (
        (ready,),  # as an operator of an earlier release left it
        (ready, replace(consent, status="False")),
        (ready, replace(consent, status="Unknown")),
    ):
        stated(*conditions)
        with pytest.raises(Unavailable):
            _ = world.profile
    stated(ready, consent, generation=1)  # the profile has changed, but not the namespace
    assert world.profile


@pytest.mark.requirement("SEC76")
async def test_a_profile_with_required_binding_and_validation_needs_no_consent(world: World) -> None:
    world.configure(external_account_binding="Required")
    resource = world.profile.resource
    world.profiles.put(replace(resource, status=replace(resource.status, conditions=resource.status.conditions[:1])))
    assert world.profile


@pytest.mark.requirement("SEC76")
async def test_a_refused_open_profile_answers_503_at_the_listener_and_opens_no_account(server: Server) -> None:
    resource = server.world.profile.resource
    refused = replace(resource, status=replace(resource.status, conditions=resource.status.conditions[:1]))
    server.world.profiles.put(refused)
    before = len(server.world.api.writes)
    assert (await server.get("/acme/pki/web/directory")).json["meta"]["externalAccountRequired"] is True
    key = ClientKey()
    answer = await server.post("/acme/pki/web/new-account", {}, key=key, jwk=key.jwk)
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert len(server.world.api.writes) == before
