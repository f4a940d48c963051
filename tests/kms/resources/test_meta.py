from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.resources import CertificatePolicy
from kms.resources.meta import (
    Condition,
    Selector,
    SelectorRequirement,
    check_depth,
    condition,
    is_label_value,
    is_true,
    key_of,
    with_condition,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
READY = Condition(type="Ready", status="True", reason="Issued", message="It is ready.", last_transition_time=NOW)
OTHER = Condition(type="ResolvedRefs", status="False", reason="NotFound", message="No.", last_transition_time=NOW)


def test_an_object_is_identified_by_namespace_and_name() -> None:
    policy = msgspec.json.decode(
        b'{"metadata": {"name": "web", "namespace": "pki", "unknown": 1}, "spec": {}}', type=CertificatePolicy
    )
    assert key_of(policy) == ("pki", "web")


def test_a_condition_is_found_by_its_type() -> None:
    assert condition([OTHER, READY], "Ready") is READY
    assert condition([OTHER], "Ready") is None
    assert is_true([OTHER, READY], "Ready")
    assert not is_true([OTHER, READY], "ResolvedRefs")
    assert not is_true([], "Ready")


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_only_true_is_true(status: str) -> None:
    assert not is_true([msgspec.convert({**msgspec.to_builtins(READY), "status": status}, Condition)], "Ready")


def test_a_condition_that_stays_keeps_its_transition_time_and_takes_the_rest() -> None:
    later = msgspec.structs.replace(
        READY, last_transition_time=NOW + timedelta(hours=1), message="Still.", reason="Renewed", observed_generation=2
    )
    assert with_condition([READY, OTHER], later) == (OTHER, msgspec.structs.replace(later, last_transition_time=NOW))


def test_a_condition_that_changes_takes_the_new_time() -> None:
    failed = msgspec.structs.replace(READY, status="False", last_transition_time=NOW + timedelta(hours=1))
    assert with_condition([READY], failed) == (failed,)
    assert with_condition([], READY) == (READY,)


def test_no_type_is_ever_there_twice() -> None:
    assert with_condition([READY, OTHER, READY], READY) == (OTHER, READY)


def requirement(operator: str, *values: str) -> Selector:
    return msgspec.convert(
        {"matchExpressions": [{"key": "team", "operator": operator, "values": list(values)}]}, Selector
    )


@pytest.mark.parametrize(
    ("selector", "web", "shop", "unlabelled"),
    [
        (Selector(), True, True, True),
        (Selector(match_labels={"team": "web"}), True, False, False),
        (Selector(match_labels={"team": "web", "stage": "live"}), False, False, False),
        (requirement("In", "web", "api"), True, False, False),
        (requirement("NotIn", "web"), False, True, True),
        (requirement("Exists"), True, True, False),
        (requirement("DoesNotExist"), False, False, True),
        (
            Selector(
                match_labels={"team": "web"},
                match_expressions=(SelectorRequirement(key="team", operator="NotIn", values=("web",)),),
            ),
            False,
            False,
            False,
        ),
    ],
)
def test_a_selector_selects_as_kubernetes_does(selector: Selector, web: bool, shop: bool, unlabelled: bool) -> None:
    assert selector.matches({"team": "web"}) is web
    assert selector.matches({"team": "shop"}) is shop
    assert selector.matches({}) is unlabelled


@pytest.mark.parametrize("text", ["a", "A9", "a-b_c.d", "x" * 63])
def test_text_that_a_label_may_carry(text: str) -> None:
    assert is_label_value(text)


@pytest.mark.parametrize("text", ["", "-a", "a-", ".a", "a b", "a/b", "x" * 64, "a\n", "ü"])
def test_text_that_no_label_may_carry(text: str) -> None:
    assert not is_label_value(text)


@given(st.text(max_size=70))
def test_a_label_value_is_short_ascii_without_line_breaks(text: str) -> None:
    if is_label_value(text):
        assert text.isascii()
        assert text.isprintable()
        assert 0 < len(text) <= 63


def nested(levels: int) -> Any:
    innermost: Any = "innermost"
    return reduce(lambda inner, _: {"a": [inner]}, range(levels // 2), innermost)


@pytest.mark.requirement("SEC82")
@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"a": [{"b": {"c": [1, 2, "x"]}}] * 50}, ""),
        (nested(60), ""),
        (nested(70), "nested more than 64 levels deep"),
        ({"a": [[]] * 10_001}, "more than 10000 values on one level"),
    ],
)
def test_a_free_form_part_has_a_depth_and_a_width(part: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) if problem else nullcontext():
        check_depth(part)
