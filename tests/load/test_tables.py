from __future__ import annotations

import pytest

from e2e.load.tables import markdown, ratio, shown, spread


def test_a_table_has_a_head_a_line_and_rows() -> None:
    assert markdown([("server", "CPU"), ("a", "1"), ("b", "2")]).splitlines() == [
        "| server | CPU |",
        "| --- | --- |",
        "| a | 1 |",
        "| b | 2 |",
    ]


@pytest.mark.parametrize(
    ("value", "base", "expected"), [(3.0, 2.0, 1.5), (None, 2.0, None), (3.0, None, None), (3.0, 0.0, None)]
)
def test_a_ratio_needs_both_figures(value: float | None, base: float | None, expected: float | None) -> None:
    assert ratio(value, base) == expected


@pytest.mark.parametrize(("value", "text"), [(None, ""), (0.5, "0.50"), (1.756, "1.76"), (41.4, "41")])
def test_a_ratio_has_two_digits_at_least(value: float | None, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("ratios", "text"),
    [
        ([2.0, 1.0, 1.5], "1.50 (1.00 to 2.00)"),
        ([2.0, 1.0, None], "1.50 (1.00 to 2.00)"),
        ([1.25], "1.25"),
        ([None], ""),
        ([], ""),
    ],
)
def test_the_spread_is_the_median_with_the_lowest_and_the_highest(ratios: list[float | None], text: str) -> None:
    assert spread(ratios) == text
