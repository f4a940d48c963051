"""Tells a person what takes so long, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_EVERY = 15.0
_CLEAR = "\r\x1b[K"
"""Back to the beginning of a terminal's line, and erase it."""


class Stream(Protocol):
    """The part of a text stream that is used here."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class Step:
    """A step that takes a while. Call it about once a second while it lasts, with how far it is."""

    def __init__(self, what: str, stream: Stream, monotonic: Callable[[], float]) -> None:
        self._what = what
        self._stream = stream
        self._monotonic = monotonic
        self._live = stream.isatty()
        self._started = self._told = monotonic()
        self._write("", f"{what} ...")

    def __call__(self, detail: str = "") -> None:
        """Update the line on a terminal; elsewhere write another one every 15 seconds."""
        now = self._monotonic()
        if self._live or now - self._told >= _EVERY:
            self._told = now
            self._write(_CLEAR, f"{self._what} ... {now - self._started:.0f} s{detail and f', {detail}'}")

    def end(self, how: str) -> None:
        """Write the last line: "done in" or "failed after"."""
        self._write(_CLEAR, f"{self._what}: {how} {self._monotonic() - self._started:.1f} s", last=True)

    def _write(self, before: str, line: str, *, last: bool = False) -> None:
        self._stream.write(f"{before if self._live else ''}{line}{chr(10) if last or not self._live else ''}")
        self._stream.flush()


class Progress:
    """Lines on a stream. On a terminal the line of the running step counts seconds, elsewhere it is repeated."""

    def __init__(self, stream: Stream, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic

    def say(self, text: str) -> None:
        """Write one line."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Tell of a step for as long as the block lasts."""
        step, how = Step(what, self._stream, self._monotonic), "failed after"
        try:
            yield step
            how = "done in"
        finally:
            step.end(how)
