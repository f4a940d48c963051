"""Statistics of a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ORDERS = 10_000
"""Memory growth is reported per this number of retained orders."""


@dataclass(frozen=True, slots=True)
class Latency:
    """The distribution of the durations of a step, in seconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values: the smallest value that at least `share` of them do not exceed.

    Raises:
        ValueError: if there are no values, or `share` is not in (0, 1].
    """
    if not ordered:
        raise ValueError("no values")
    if not 0 < share <= 1:
        raise ValueError(f"a share must be above 0 and at most 1, not {share}")
    return ordered[math.ceil(share * len(ordered)) - 1]


def latency(seconds: Iterable[float]) -> Latency:
    """The summary of some durations.

    Raises:
        ValueError: if there are none.
    """
    ordered = sorted(seconds)
    return Latency(
        count=len(ordered),
        p50=percentile(ordered, 0.50),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        maximum=ordered[-1],
        mean=statistics.fmean(ordered),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of y over x; 0 if x does not vary."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def growth_per_10000(samples: Sequence[tuple[int, int]]) -> float:
    """The growth of resident memory in bytes per 10,000 orders, from samples (orders so far, bytes).

    It is the slope over all samples. Memory grows and shrinks in steps, so in a short run the difference between first
    and last would mostly measure the steps.
    """
    return ORDERS * slope([(float(orders), float(octets)) for orders, octets in samples])


def per_order(totals: Mapping[str, float], orders: int) -> dict[str, float]:
    """Each total divided by the number of orders.

    Raises:
        ValueError: if there are no orders.
    """
    if orders <= 0:
        raise ValueError("no order was finished")
    return {name: total / orders for name, total in totals.items()}


def floor_of(parts: Mapping[str, float], shares: Mapping[str, int]) -> float:
    """The sum of the CPU seconds of the parts of an order; `shares` has the number of each part.

    A part that was not measured counts as 0.
    """
    return sum(parts.get(name, 0.0) * count for name, count in shares.items())
