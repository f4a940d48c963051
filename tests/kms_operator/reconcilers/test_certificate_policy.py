"""Policies: in force, or the field that is wrong."""

from __future__ import annotations

import pytest

from kms.resources.policies import PolicyStatus
from kms.resources.retained import retained
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_policy
from tests.support.operated import NOW, entropy, event_reasons, policy, ready_status, snapshot_of, stated


def text_of(plan: Plan) -> str | None:
    assert isinstance(plan.status, PolicyStatus)
    return plan.status.dns_names


def test_rules_that_make_sense_are_ready() -> None:
    plan = certificate_policy.plan(policy(), snapshot_of(), now=NOW, entropy=entropy())
    assert (stated(plan).status, stated(plan).reason) == ("True", "Accepted")
    assert stated(plan).observed_generation == 1
    assert event_reasons(plan) == ["Accepted"]


def test_the_allowed_names_are_told_in_one_text() -> None:
    sixty = [f"*.team-{number}.apps.example.com" for number in range(60)]
    for allowed, text in (
        (["*.example.com", "b.test"], "*.example.com, b.test"),
        (sixty, "*.team-0.apps.example.com, *.team-1.apps.example.com and 58 more"),
        ([], ""),
    ):
        plan = certificate_policy.plan(policy(dnsNames={"allowed": allowed}), snapshot_of(), now=NOW, entropy=entropy())
        assert text_of(plan) == text
    assert text_of(certificate_policy.plan(policy(), snapshot_of(), now=NOW, entropy=entropy())) is not None


def test_the_text_of_a_policy_whose_rules_are_not_cached_stays() -> None:
    unused = {"type": "InUse", "status": "False", "reason": "NotReferenced", "message": "", "lastTransitionTime": NOW}
    status = ready_status("Accepted")
    status = {**status, "observedGeneration": 1, "dnsNames": "*.a.test", "conditions": [*status["conditions"], unused]}
    known = retained(policy(status=status, dnsNames={"allowed": ["*.a.test"]}))
    assert known.spec.dns_names is None
    plan = certificate_policy.plan(known, snapshot_of(), now=NOW, entropy=entropy())
    assert text_of(plan) == "*.a.test"


def test_a_rule_that_makes_no_sense_is_named_with_its_field() -> None:
    bad = policy(ipAddresses={"allowed": ["10.0.0.0/33"]})
    plan = certificate_policy.plan(bad, snapshot_of(), now=NOW, entropy=entropy())
    assert (stated(plan).status, stated(plan).reason) == ("False", "InvalidRules")
    assert stated(plan).message.startswith("spec.ipAddresses.allowed")
    assert plan.events[0].type == "Warning"


@pytest.mark.requirement("SEC74")
def test_rules_that_take_too_long_to_apply_are_not_ready_and_say_what_to_shorten() -> None:
    costly = policy(dnsNames={"allowed": [f"*w*{number}*.example.com" for number in range(300)]})
    plan = certificate_policy.plan(costly, snapshot_of(), now=NOW, entropy=entropy())
    assert (stated(plan).status, stated(plan).reason) == ("False", "RulesTooCostly")
    assert stated(plan).message.startswith("spec.dnsNames.allowed: ")
    assert "write fewer patterns with the same ending" in stated(plan).message
    assert plan.events[0].type == "Warning"


def test_a_policy_that_stays_as_it_is_tells_nothing_new() -> None:
    known = policy(status=ready_status("Accepted"))
    plan = certificate_policy.plan(known, snapshot_of(), now=NOW, entropy=entropy())
    assert event_reasons(plan) == []
    assert stated(plan).last_transition_time < NOW
