"""Policies: in force, or the field that is wrong."""

from __future__ import annotations

from kms_operator.reconcilers import certificate_policy
from tests.support.operated import NOW, entropy, policy, ready_status, snapshot_of, stated, told


def test_rules_that_make_sense_are_ready() -> None:
    outcome = certificate_policy.reconcile(policy(), snapshot_of(), now=NOW, entropy=entropy())
    assert (stated(outcome).status, stated(outcome).reason) == ("True", "Accepted")
    assert stated(outcome).observed_generation == 1
    assert told(outcome) == ["Accepted"]


def test_a_rule_that_makes_no_sense_is_named_with_its_field() -> None:
    bad = policy(ipAddresses={"allowed": ["10.0.0.0/33"]})
    outcome = certificate_policy.reconcile(bad, snapshot_of(), now=NOW, entropy=entropy())
    assert (stated(outcome).status, stated(outcome).reason) == ("False", "InvalidRules")
    assert stated(outcome).message.startswith("spec.ipAddresses.allowed")
    assert outcome.events[0].type == "Warning"


def test_a_policy_that_stays_as_it_is_tells_nothing_new() -> None:
    known = policy(status=ready_status("Accepted"))
    outcome = certificate_policy.reconcile(known, snapshot_of(), now=NOW, entropy=entropy())
    assert told(outcome) == []
    assert stated(outcome).last_transition_time < NOW
