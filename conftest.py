"""Fixtures that tests/ and e2e/ share."""

from __future__ import annotations

pytest_plugins = ["e2e.cluster.fixtures"]
