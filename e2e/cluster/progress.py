"""Shows the progress of long steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_EVERY = 15.0
_CLEAR = "\r\x1b[K"
"""Return to the start of the terminal line and erase it."""


class Stream(Protocol):
    """The methods of a text stream that are used here."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class Step:
    """A long step. Call it about once a second with a text about its progress."""

    def __init__(self, what: str, stream: Stream, monotonic: Callable[[], float]) -> None:
        self._what = what
        self._stream = stream
        self._monotonic = monotonic
        self._live = stream.isatty()
        self._started = self._told = monotonic()
        self._write("", f"{what} ...")

    def __call__(self, detail: str = "") -> None:
        """Update the line on a terminal; elsewhere, write a new line every 15 seconds."""
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
    """Progress on a stream: an updated line on a terminal, repeated lines elsewhere."""

    def __init__(self, stream: Stream, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic

    def say(self, text: str) -> None:
        """Write one line."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show a step for the duration of the block."""
        step, how = Step(what, self._stream, self._monotonic), "failed after"
        try:
            yield step
            how = "done in"
        finally:
            step.end(how)
