from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.load.figures import Latency, floor_of, growth_per_10000, latency, per_order, percentile, slope


def test_the_percentile_is_a_value_that_occurred() -> None:
    hundred = [float(each) for each in range(1, 101)]
    assert percentile(hundred, 0.5) == 50
    assert percentile(hundred, 0.95) == 95
    assert percentile(hundred, 0.99) == 99
    assert percentile(hundred, 1) == 100
    assert percentile([7.0], 0.01) == 7


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_at_least_that_share_of_the_values_does_not_exceed_the_percentile(values: list[float], share: float) -> None:
    values.sort()
    found = percentile(values, share)
    assert found in values
    assert sum(each <= found for each in values) >= share * len(values) - 1e-6
    assert sum(each < found for each in values) < share * len(values)


@pytest.mark.parametrize("share", [0, -0.1, 1.01])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], share)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        latency([])


def test_a_latency_tells_count_mean_and_percentiles() -> None:
    assert latency([0.75, 0.25, 0.5]) == Latency(count=3, mean=0.5, p50=0.5, p95=0.75, p99=0.75, maximum=0.75)


def test_the_slope_of_a_line_is_found() -> None:
    assert slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]])
def test_points_that_make_no_line_have_no_slope(points: list[tuple[float, float]]) -> None:
    assert slope(points) == 0


def test_growth_is_told_for_ten_thousand_orders_and_not_fooled_by_one_step() -> None:
    samples = [(orders, 50_000_000 + 4096 * orders) for orders in range(0, 2000, 100)]
    assert growth_per_10000(samples) == pytest.approx(40_960_000)
    last_minus_first = [*samples[:-1], (1900, samples[-1][1] + 8_000_000)]
    assert growth_per_10000(last_minus_first) < 40_960_000 + 10_000 * 8_000_000 / 1900


def test_totals_are_divided_by_the_orders() -> None:
    assert per_order({"server": 6.0, "client": 3.0}, 2000) == {"server": 0.003, "client": 0.0015}


def test_nothing_can_be_told_per_order_without_orders() -> None:
    with pytest.raises(ValueError, match="no order"):
        per_order({"server": 1.0}, 0)


def test_the_floor_is_the_sum_of_its_parts() -> None:
    assert floor_of({"request": 0.001, "write": 0.002}, {"request": 9, "write": 3}) == pytest.approx(0.015)


def test_a_part_that_was_not_measured_adds_nothing() -> None:
    assert floor_of({"request": 0.001}, {"request": 9, "write": 3}) == pytest.approx(0.009)
