"""Counters and histograms for what happens at every request: to count costs one update of a dictionary.

prometheus_client's own take up to nine calls and a lock. These are collectors of its registry, with the same samples.
They belong to the event loop: other threads must not count, nor collect.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Sample
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
"""The values of all labels of a metric, in their order."""
Clock = Callable[[], float]
"""Seconds since the epoch."""


class Counts(dict[Labels, int]):
    """What has been counted: `counts["GET", "200"] += 1`. `created` is when each began, in seconds since the epoch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.created: dict[Labels, float] = {}
        self._clock = clock

    def __missing__(self, labels: Labels) -> int:
        self.created[labels] = self._clock()
        return 0


def counter(
    registry: CollectorRegistry, name: str, text: str, labelnames: Sequence[str], *, clock: Clock = time.time
) -> Counts:
    """Register a counter with labels; it appears as `<name>_total`."""
    counts = Counts(clock)
    registry.register(_Counter(name, text, labelnames, counts))
    return counts


class _Counter:
    def __init__(self, name: str, text: str, labelnames: Sequence[str], counts: Counts) -> None:
        self._name = name
        self._text = text
        self._labelnames = labelnames
        self._counts = counts

    def describe(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._text, labels=self._labelnames)

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labelnames)
        for labels, count in self._counts.items():
            family.add_metric(labels, count, created=self._counts.created[labels])
        yield family


class _Series:
    """The observations with the same labels: how many fell into each bucket, and their sum."""

    __slots__ = ("buckets", "created", "total")

    def __init__(self, buckets: int, created: float) -> None:
        self.buckets = [0] * buckets
        self.created = created
        self.total = 0.0


class LabelledHistogram:
    """A histogram with labels. `buckets` are upper bounds in ascending order; another one has no bound."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        labelnames: Sequence[str],
        *,
        buckets: Sequence[float],
        clock: Clock = time.time,
    ) -> None:
        self._name = name
        self._text = text
        self._labelnames = labelnames
        self._bounds = tuple(buckets)
        self._clock = clock
        self._series: dict[Labels, _Series] = {}
        registry.register(self)

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(len(self._bounds) + 1, self._clock())
        series.buckets[bisect_left(self._bounds, value)] += 1
        series.total += value

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The metric without samples, from which the registry has its names."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labelnames)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All samples."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labelnames)
        bounds = (*self._bounds, float("inf"))
        names = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]
        for labels, series in self._series.items():
            family.add_metric(labels, tuple(zip(names, accumulate(series.buckets), strict=True)), series.total)
            created = dict(zip(self._labelnames, labels, strict=True))
            family.samples.append(Sample(f"{self._name}_created", created, series.created))
        yield family
