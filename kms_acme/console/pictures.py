"""Bars as SVG, each with its table. Pure.

The style of the pages colours them by class: an attribute `style` would not pass the Content-Security-Policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 160
_FOOT, _TOP = 20, 16
"""Room for labels below and above the bars."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A column: its label, the label below the axis ("": none), and a number for each series."""

    label: str
    tick: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle of the series number `series`."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Stacked bars. `id` is that of the element; `first` is the title of the column of labels in the table."""

    id: str
    title: str
    first: str
    series: tuple[str, ...]
    bins: tuple[Bin, ...]

    @property
    def largest(self) -> int:
        """The highest column, at least 1."""
        return max((sum(each.values) for each in self.bins), default=0) or 1

    @property
    def total(self) -> int:
        """All columns together."""
        return sum(sum(each.values) for each in self.bins)

    @property
    def bars(self) -> Sequence[Bar]:
        """The rectangles."""
        wide = WIDTH / max(1, len(self.bins))
        scale = (HEIGHT - _FOOT - _TOP) / self.largest
        found = []
        for position, column in enumerate(self.bins):
            x, top = round(position * wide + 1, 1), float(HEIGHT - _FOOT)
            for number, value in enumerate(column.values):
                height = value * scale
                top -= height
                if value:
                    title = f"{column.label}: {value} {self.series[number]}"
                    found.append(Bar(x, round(top, 1), round(wide - 2, 1), round(height, 1), number, title))
        return found

    @property
    def ticks(self) -> Sequence[tuple[float, str]]:
        """Where labels stand below the axis."""
        wide = WIDTH / max(1, len(self.bins))
        return [(round(position * wide + 1, 1), each.tick) for position, each in enumerate(self.bins) if each.tick]
