"""Conditions keep their time, and events are posted once."""

from __future__ import annotations

from kms.contract import WARNINGS
from kms_operator.plan import (
    ConditionUpdate,
    earliest,
    merge_conditions,
    not_ready,
    ready,
    transition_events,
)
from tests.support.operated import DAY, NOW

LATER = NOW + DAY


def test_the_time_of_a_condition_moves_with_its_status_only() -> None:
    first = merge_conditions((), [ready("Issued", "a")], generation=1, now=NOW)
    same = merge_conditions(first, [ready("Renewed", "b")], generation=2, now=LATER)
    assert (same[0].last_transition_time, same[0].reason, same[0].observed_generation) == (NOW, "Renewed", 2)
    other = merge_conditions(same, [not_ready("KeyLost", "c")], generation=2, now=LATER)
    assert other[0].last_transition_time == LATER


def test_conditions_come_in_order_and_old_ones_that_nobody_states_go() -> None:
    updates = [ready("A", ""), type(ready("B", ""))("True", "B", "", "Accepted")]
    both = merge_conditions((), updates, generation=1, now=NOW)
    assert [each.type for each in both] == ["Accepted", "Ready"]
    assert [each.type for each in merge_conditions(both, updates[:1], generation=1, now=NOW)] == ["Ready"]


def test_a_verdict_is_announced_when_its_status_or_reason_is_new() -> None:
    old = merge_conditions((), [ready("Issued", "a")], generation=1, now=NOW)
    assert transition_events(old, ready("Issued", "other words")) == ()
    assert transition_events(old, ready("Renewed", "a"))[0].type == "Normal"
    assert transition_events(old, not_ready("Issued", "a"))[0].type == "Warning"
    assert transition_events(old, ConditionUpdate("Unknown", "Issued", "a"))[0].type == "Normal"
    assert transition_events((), ConditionUpdate("True", "Flawed", "a", WARNINGS))[0].type == "Warning"
    assert transition_events((), ConditionUpdate("Unknown", "Flawed", "a", WARNINGS))[0].type == "Normal"


def test_the_earliest_of_moments() -> None:
    assert earliest(None, LATER, NOW) == NOW
    assert earliest(None) is None
