"""Types of parameters that several commands have."""

from __future__ import annotations

import re
from typing import Any

import click

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")


def is_name(text: str) -> bool:
    """Whether the text can be the name of an object or a namespace."""
    return _NAME.fullmatch(text) is not None


class ObjectName(click.ParamType[tuple[str, str]]):
    """`NAMESPACE/NAME`."""

    name = "namespace/name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse the name. An invalid one ends the program with exit code 2."""
        namespace, separator, name = str(value).partition("/")
        if not separator or not is_name(namespace) or not is_name(name):
            self.fail(f"{value!r} does not name an object; write NAMESPACE/NAME", param, ctx)
        return namespace, name


class NamespaceName(click.ParamType[str]):
    """`NAMESPACE`."""

    name = "namespace"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name. An invalid one ends the program with exit code 2."""
        if not is_name(str(value)):
            self.fail(f"{value!r} is not a namespace", param, ctx)
        return str(value)
