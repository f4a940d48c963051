"""What commands that change many objects show: the objects, a question, progress and a summary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from kms.pki.quoting import printable
from kms.resources.meta import Unreadable

_SHOWN = 20
"""Number of objects listed before the confirmation."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wording:
    """The words for a change: `verb` ("revoke"), `done` ("revoked"), `noun` ("certificate"), `declined` as a sentence.

    `detail` follows the number of objects in the question (" (superseded)").
    """

    verb: str
    done: str
    noun: str
    declined: str
    detail: str = ""

    def count(self, number: int) -> str:
        """The number with the noun."""
        return f"{number} {self.noun}" if number == 1 else f"{number} {self.noun}s"


def print_unreadable(unreadable: Sequence[Unreadable], kind: str, done: str) -> None:
    """Print the objects that cannot be read, so that they are not changed, to standard error."""
    for each in unreadable:
        name = f"{each.metadata.namespace}/{each.metadata.name}"
        click.echo(f"{kind} {name} cannot be read and is not {done}: {each}", err=True)


async def confirm_and_change(
    objects: Sequence[T],
    change: Callable[[Callable[[T, str | None], None]], Awaitable[int]],
    *,
    line: Callable[[T], str],
    wording: Wording,
    values: Any,
) -> int:
    """List the objects, ask, and change them unless --dry-run says otherwise. Returns the exit code.

    `line` describes an object. `change` changes all of them, calls back for each with the error if it failed, and
    returns the number of failures. `values` are the options, with `dry_run` and `yes`.
    """
    number = wording.count(len(objects))
    for each in objects[:_SHOWN]:
        click.echo(printable(line(each)))
    if len(objects) > _SHOWN:
        click.echo(f"and {len(objects) - _SHOWN} more")
    if values["dry_run"]:
        click.echo(f"{number} would be {wording.done}{wording.detail}.")
        return 0
    if not values["yes"] and not click.confirm(f"{wording.verb.capitalize()} {number}{wording.detail}?"):
        click.echo(wording.declined)
        return 1
    done = 0

    def print_result(object_: T, error: str | None) -> None:
        nonlocal done
        done += 1
        click.echo(
            printable(f"[{done}/{len(objects)}] {line(object_)}: {error or wording.done}"), err=error is not None
        )

    failures = await change(print_result)
    click.echo(f"{len(objects) - failures} of {number} {wording.done}.")
    return 1 if failures else 0
