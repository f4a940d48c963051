"""A group whose commands are imported when they are needed: most of them start in a fraction of the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

Load = Callable[[], click.Command]
"""Imports a command and returns it."""


class LazyGroup(click.Group):
    """A group with the commands that it was given, and `lazy` ones."""

    def __init__(self, *args: Any, lazy: Mapping[str, Load], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name in self._lazy:
            return self._lazy[cmd_name]()
        return super().get_command(ctx, cmd_name)
