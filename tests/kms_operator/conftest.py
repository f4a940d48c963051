"""What all tests of the operator need."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _workers_that_kopf_dropped() -> Iterator[None]:
    """Collect them here, where their warnings are ignored: code that hypothesis evaluates cannot give any."""
    yield
    gc.collect()
