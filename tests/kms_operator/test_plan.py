"""Conditions keep their time, events are told once, and Secrets are written only where they differ."""

from __future__ import annotations

import pytest

from kms_operator.plan import (
    earliest,
    merge_conditions,
    not_ready,
    ready,
    secrets_to_write,
    transition_events,
    with_version_of,
)
from tests.support.operated import DAY, NOW, secret

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


def test_additions_of_others_to_a_secret_are_no_reason_to_write() -> None:
    wanted = secret("x", data={"a": b"1"}, labels={"l": "1"})
    existing = secret("x", data={"a": b"1", "b": b"2"}, labels={"l": "1", "m": "2"}, owner_uids=["somebody"])
    assert secrets_to_write(existing, wanted) == ()


@pytest.mark.parametrize(
    "existing",
    [
        secret("x", data={"a": b"2"}, labels={"l": "1"}, owner_uids=["o"], version=5),
        secret("x", data={"a": b"1"}, labels={}, owner_uids=["o"], version=5),
        secret("x", data={"a": b"1"}, labels={"l": "1"}, version=5),
    ],
)
def test_what_differs_is_written_over_what_was_seen(existing: object) -> None:
    wanted = secret("x", data={"a": b"1"}, labels={"l": "1"}, owner_uids=["o"])
    (written,) = secrets_to_write(existing, wanted)  # type: ignore[arg-type]
    assert written.metadata.resource_version == "5"


def test_what_is_not_there_must_not_be_there_when_it_is_written() -> None:
    assert with_version_of(secret("x", version=5), None).metadata.resource_version == ""


def test_the_type_of_a_secret_cannot_change() -> None:
    assert with_version_of(secret("x"), secret("x", type_="kubernetes.io/tls")).type == "kubernetes.io/tls"


def test_the_earliest_of_moments() -> None:
    assert earliest(None, LATER, NOW) == NOW
    assert earliest(None) is None
