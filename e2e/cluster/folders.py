"""Where things are kept outside the tree, after the XDG base directory specification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache(env: Mapping[str, str] = os.environ) -> Path:
    """Of what can be made again: built programs, the Go toolchain."""
    return _base(env, "XDG_CACHE_HOME", ".cache") / "kms-acme"


def state(env: Mapping[str, str] = os.environ) -> Path:
    """Of what is running: one folder a cluster."""
    return _base(env, "XDG_STATE_HOME", ".local/state") / "kms-acme"


def _base(env: Mapping[str, str], variable: str, default: str) -> Path:
    """A relative path in the variable counts as unset, as the specification demands."""
    given = Path(env.get(variable, ""))
    return given if given.is_absolute() else Path.home() / default
