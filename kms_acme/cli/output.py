"""Lists on a terminal and for programs. Rows are printed as they come, so that a long list needs no memory."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import click
import yaml

from kms.pki.quoting import printable

T = TypeVar("T")

FORMATS = ("table", "wide", "json", "yaml", "csv")
_TITLE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MEASURED = 200
"""Rows that decide how wide the columns of a table are."""


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column: its name as a field, its value, whether only wide tables have it, and its colour."""

    name: str
    value: Callable[[T], Any]
    wide: bool = False
    color: Callable[[T], str | None] = lambda _: None


class Printer(Generic[T]):
    """Prints rows in one of FORMATS. `close` ends the list."""

    def __init__(self, format_: str, columns: Sequence[Column[T]]) -> None:
        self._format = format_
        self._columns = [each for each in columns if format_ != "table" or not each.wide]
        self._waiting: list[T] = []
        self._widths: list[int] = []
        self.count = 0

    def add(self, row: T) -> None:
        """Print a row, or keep the first ones until the width of the columns is known."""
        self.count += 1
        match self._format:
            case "json":
                click.echo(("[\n" if self.count == 1 else ",\n") + json.dumps(self._fields(row)), nl=False)
            case "yaml":
                click.echo(yaml.safe_dump([self._fields(row)], sort_keys=False), nl=False)
            case "csv":
                if self.count == 1:
                    self._csv([each.name for each in self._columns])
                self._csv([_text(each.value(row), ";") for each in self._columns])
            case _ if self._widths:
                self._line(row)
            case _:
                self._waiting.append(row)
                if len(self._waiting) >= _MEASURED:
                    self._begin()

    def close(self) -> None:
        """Print what is left."""
        if self._format == "json":
            click.echo("\n]" if self.count else "[]")
        elif self._format == "yaml" and not self.count:
            click.echo("[]")
        elif self._format == "csv" and not self.count:
            self._csv([each.name for each in self._columns])
        elif self._waiting:
            self._begin()

    def _fields(self, row: T) -> Mapping[str, Any]:
        values = ((each.name, each.value(row)) for each in self._columns)
        return {name: _plain(value) for name, value in values if value is not None}

    def _csv(self, cells: Sequence[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        click.echo(line.getvalue(), nl=False)

    def _begin(self) -> None:
        titles = [_TITLE.sub(" ", each.name).upper() for each in self._columns]
        table = [[_text(each.value(row), ",") for each in self._columns] for row in self._waiting]
        self._widths = [max(map(len, column)) for column in zip(titles, *table, strict=True)]
        click.echo(click.style(self._padded(titles), bold=True))
        waiting, self._waiting = self._waiting, []
        for row in waiting:
            self._line(row)

    def _line(self, row: T) -> None:
        cells = [_text(each.value(row), ",") or "-" for each in self._columns]
        color = next((found for each in self._columns if (found := each.color(row)) is not None), None)
        line = self._padded(cells)
        click.echo(click.style(line, fg=color) if color is not None else line)

    def _padded(self, cells: Sequence[str]) -> str:
        return "   ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()


class Progress:
    """How many objects were read, on a terminal only: on standard error, so that it never mixes with the list."""

    def __init__(self, noun: str, *, every: int = 1_000) -> None:
        self._noun = noun
        self._every = every
        self._shown = False
        self._enabled = sys.stderr.isatty()

    def __call__(self, number: int) -> None:
        """Show the number from time to time."""
        if self._enabled and number % self._every == 0:
            self._shown = True
            click.echo(f"\r{number:,} {self._noun}", err=True, nl=False)

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._shown = False


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any, separator: str) -> str:
    if value is None:
        return ""
    plain = _plain(value)
    return printable(separator.join(map(str, plain)) if isinstance(plain, list) else str(plain))
