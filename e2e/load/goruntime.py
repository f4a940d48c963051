"""What the Go runtime of a program says of its memory in its metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_ALLOCATED = "go_memstats_alloc_bytes_total"
_COLLECTING = "go_cpu_classes_gc_total_cpu_seconds_total"


@dataclass(frozen=True, slots=True)
class GoRuntime:
    """Bytes that a program has allocated since its start, and CPU seconds of its garbage collections."""

    allocated: float
    collecting: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the Prometheus metrics of a program.

        Raises:
            ValueError: if they lack these figures.
        """
        return cls(_figure(text, _ALLOCATED), _figure(text, _COLLECTING))

    def __sub__(self, earlier: Self) -> Self:
        """What happened since an earlier reading."""
        return type(self)(self.allocated - earlier.allocated, self.collecting - earlier.collecting)


def _figure(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{name} is missing")
    return float(found[1])
