"""Whether the server can serve, and whether it lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class Readiness:
    """Whether this process can serve. Set `shutting_down` when it must not get new clients any more."""

    def __init__(self) -> None:
        self._conditions: dict[str, Callable[[], bool]] = {}
        self.shutting_down = False
        self.is_alive: Callable[[], bool] = lambda: True
        """Whether what this process answers for is alive; that it answers at all says so of itself."""

    def require(self, conditions: Mapping[str, Callable[[], bool]]) -> None:
        """Add conditions by name; /readyz lists the names of those that do not hold."""
        self._conditions |= conditions

    def missing(self) -> Sequence[str]:
        """The names of the conditions that do not hold; empty: ready."""
        return [name for name, holds in self._conditions.items() if not holds()]
