"""Whether this process can serve: what /readyz says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class Readiness:
    """Asks each condition whenever it is asked itself. Starts with none; `shutting_down` ends it all."""

    def __init__(self) -> None:
        self._conditions: dict[str, Callable[[], bool]] = {}
        self.shutting_down = False

    def require(self, conditions: Mapping[str, Callable[[], bool]]) -> None:
        """Wait for these too; their names say in words what is waited for."""
        self._conditions |= conditions

    def missing(self) -> Sequence[str]:
        """What is still waited for; empty: ready."""
        if self.shutting_down:
            return ["the end: this server is shutting down"]
        return [name for name, holds in self._conditions.items() if not holds()]
