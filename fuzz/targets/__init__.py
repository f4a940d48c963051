"""The targets: one per file, as `TARGET`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from fuzz.target import Target

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Target:
    """Load a target by its name."""
    target = import_module(f"{__name__}.{name}").TARGET
    if not isinstance(target, Target):
        raise TypeError(f"fuzz/targets/{name}.py has no Target under the name TARGET")
    return target
