"""Options that take several sizes to compare."""

from __future__ import annotations

from collections.abc import Callable

import click


def ascending(most: int) -> Callable[[click.Context, click.Parameter, str], tuple[int, ...]]:
    """A parser of ascending numbers separated by commas; 0 means none."""

    def parse(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
        try:
            found = tuple(int(each) for each in value.split(","))
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not of the form N,N, as in 1,10,100") from error
        if found == (0,):
            return ()
        if not all(1 <= each <= most for each in found) or list(found) != sorted(set(found)):
            raise click.BadParameter(f"{value!r}: sizes must be from 1 to {most:,}, ascending; 0 alone skips the group")
        return found

    return parse
