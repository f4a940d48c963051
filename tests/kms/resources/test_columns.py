from __future__ import annotations

import pytest

from kms.resources.columns import MAXIMUM_LENGTH, list_text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        (["a.example.com"], "a.example.com"),
        (["a.example.com", "10.0.0.1"], "a.example.com, 10.0.0.1"),
        (
            [f"shop-{number}.apps.example.com" for number in range(12)],
            "shop-0.apps.example.com, shop-1.apps.example.com and 10 more",
        ),
        (["x" * 253], "x" * 77 + "..."),
        (["x" * 253, "b.test"], "x" * 66 + "... and 1 more"),
        (["a" * 39, "b" * 39], "a" * 39 + ", " + "b" * 39),
        (["a" * 39, "b" * 40], "a" * 39 + " and 1 more"),
    ],
)
def test_a_list_is_one_text_for_people(values: list[str], text: str) -> None:
    assert list_text(values) == text
    assert len(text) <= MAXIMUM_LENGTH


def test_the_longest_lists_stay_short() -> None:
    for length in (1, 63, 253):
        for count in (2, 99, 1_000_000 // length):
            assert len(list_text(["x" * length] * count)) <= MAXIMUM_LENGTH
