from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.cluster.resource_version import newer, number


def test_versions_are_compared_as_numbers_not_as_text() -> None:
    assert newer("10", "9")
    assert not newer("9", "10")
    assert not newer("9", "9")


def test_a_version_is_newer_than_none() -> None:
    assert newer("1", "")


@pytest.mark.parametrize("text", ["", "0", "007", "-7", "+7", "7 ", "x", "\u0667", "1_0", "7.0"])
def test_what_is_no_positive_integer_in_its_only_form_has_no_order(text: str) -> None:
    assert number(text) is None
    assert number("7") == 7


@given(st.text(), st.text())
def test_of_two_versions_at_least_one_is_not_older(a: str, b: str) -> None:
    assert newer(a, b) or newer(b, a) or a == b or int(a) == int(b)


@given(st.text())
def test_nothing_is_newer_than_itself(a: str) -> None:
    assert not newer(a, a)
