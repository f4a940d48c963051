from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kms.cluster.resource_version import newer


def test_versions_are_compared_as_numbers_not_as_text() -> None:
    assert newer("10", "9")
    assert not newer("9", "10")
    assert not newer("9", "9")


def test_a_version_is_newer_than_none() -> None:
    assert newer("1", "")


@given(st.text(), st.text())
def test_of_two_versions_at_least_one_is_not_older(a: str, b: str) -> None:
    assert newer(a, b) or newer(b, a) or a == b or int(a) == int(b)


@given(st.text())
def test_nothing_is_newer_than_itself(a: str) -> None:
    assert not newer(a, a)
