"""Policies: in force, or the field that is wrong."""

from __future__ import annotations

from kms_operator.reconcilers import certificate_policy
from tests.support.operated import NOW, entropy, event_reasons, policy, ready_status, snapshot_of, stated


def test_rules_that_make_sense_are_ready() -> None:
    plan = certificate_policy.plan(policy(), snapshot_of(), now=NOW, entropy=entropy())
    assert (stated(plan).status, stated(plan).reason) == ("True", "Accepted")
    assert stated(plan).observed_generation == 1
    assert event_reasons(plan) == ["Accepted"]


def test_a_rule_that_makes_no_sense_is_named_with_its_field() -> None:
    bad = policy(ipAddresses={"allowed": ["10.0.0.0/33"]})
    plan = certificate_policy.plan(bad, snapshot_of(), now=NOW, entropy=entropy())
    assert (stated(plan).status, stated(plan).reason) == ("False", "InvalidRules")
    assert stated(plan).message.startswith("spec.ipAddresses.allowed")
    assert plan.events[0].type == "Warning"


def test_a_policy_that_stays_as_it_is_tells_nothing_new() -> None:
    known = policy(status=ready_status("Accepted"))
    plan = certificate_policy.plan(known, snapshot_of(), now=NOW, entropy=entropy())
    assert event_reasons(plan) == []
    assert stated(plan).last_transition_time < NOW
