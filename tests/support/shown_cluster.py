"""The cluster of docs/command-line.md: the samples as an operator leaves them, and what clients did."""

from __future__ import annotations

from tests.support.apiserver import FakeApiServer


def fill(api: FakeApiServer) -> None:
    """Put the objects into an API server."""
    assert api.store.by_key == {}
