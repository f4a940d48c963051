"""Telling a person what takes so long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_EVERY = 15.0


class Stream(Protocol):
    """As much of a text stream as it takes."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class Progress:
    """Lines on a stream. On a terminal the line of the running step counts seconds, elsewhere it is repeated."""

    def __init__(self, stream: Stream, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic

    def say(self, text: str) -> None:
        """One line."""
        self._write(f"{text}\n")

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[], None]]:
        """A step that takes a while: call the yielded function about once a second while it lasts."""
        started = told = self._monotonic()
        live = self._stream.isatty()
        self._write(f"{what} ..." if live else f"{what} ...\n")

        def tick() -> None:
            nonlocal told
            now = self._monotonic()
            if live:
                self._write(f"\r{what} ... {now - started:.0f} s")
            elif now - told >= _EVERY:
                told = now
                self._write(f"{what} ... {now - started:.0f} s\n")

        ended = "failed after"
        try:
            yield tick
            ended = "done in"
        finally:
            self._write(f"{chr(13) if live else ''}{what}: {ended} {self._monotonic() - started:.1f} s\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
