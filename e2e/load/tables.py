"""Tables of ratios in Markdown, as the documentation shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the first row is its head."""
    head, *lines = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))


def ratio(value: float | None, base: float | None) -> float | None:
    """A value in multiples of another one; None if one of them was not measured."""
    return None if value is None or not base else value / base


def shown(value: float | None) -> str:
    """A ratio with two significant digits at least; empty if there is none."""
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def spread(ratios: Iterable[float | None]) -> str:
    """The median of ratios, with the lowest and the highest of them; empty if there is none."""
    found = [each for each in ratios if each is not None]
    if not found:
        return ""
    middle = shown(statistics.median(found))
    return middle if len(found) == 1 else f"{middle} ({shown(min(found))} to {shown(max(found))})"
