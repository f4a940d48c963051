"""What the services report about themselves; the metrics of the edge implement it, tests count with it."""

from __future__ import annotations

from typing import Protocol


class Metrics(Protocol):
    """Receives one call for each thing that a person who runs the server wants to count. Values are few and fixed."""

    def order(self, outcome: str) -> None:
        """An order was `created`, `refused`, became `valid` or `invalid`."""
        ...

    def validation(self, type_: str, result: str, seconds: float) -> None:
        """A validation ended after that long: `valid`, or the problem type of its last failure."""
        ...

    def issuance(self, result: str, seconds: float) -> None:
        """An issuer was asked: `signed`, `not-ready` or `failed`."""
        ...

    def swept(self, kind: str, result: str) -> None:
        """An object that was due was `removed`, or that `failed`."""
        ...

    def caa(self, mode: str, result: str) -> None:
        """CAA records were looked at in that mode (`Report`, `Enforce`): `allowed`, `forbidden` or `failed`."""
        ...


class NoMetrics:
    """Counts nothing."""

    def order(self, outcome: str) -> None:
        """Ignore it."""

    def validation(self, type_: str, result: str, seconds: float) -> None:
        """Ignore it."""

    def issuance(self, result: str, seconds: float) -> None:
        """Ignore it."""

    def swept(self, kind: str, result: str) -> None:
        """Ignore it."""

    def caa(self, mode: str, result: str) -> None:
        """Ignore it."""
