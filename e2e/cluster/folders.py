"""Folders outside the tree, as in the XDG base directory specification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache(env: Mapping[str, str] = os.environ) -> Path:
    """The cache: built programs and the Go toolchain."""
    return _base(env, "XDG_CACHE_HOME", ".cache") / "kms-acme"


def state(env: Mapping[str, str] = os.environ) -> Path:
    """The state: a folder for each running cluster."""
    return _base(env, "XDG_STATE_HOME", ".local/state") / "kms-acme"


def _base(env: Mapping[str, str], variable: str, default: str) -> Path:
    """The base folder. A relative path in the variable is ignored, as in the specification."""
    given = Path(env.get(variable, ""))
    return given if given.is_absolute() else Path.home() / default
