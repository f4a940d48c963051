"""What a command prints, line by line, and how long it has printed nothing."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable
from typing import TextIO

CLEAR = "\r\x1b[K"
"""Back to the beginning of a terminal's line, and erase it."""


class Lines:
    """Cuts output into lines, and hands on each as soon as it is complete."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""
        self.text = ""

    def take(self, chunk: bytes) -> bool:
        """Take what was read. An empty chunk is the end: then the answer is False."""
        text = self._decode(chunk, final=not chunk)
        self.text += text
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._show(line)
        if not chunk and self._rest:
            self._show(self._rest)
        return bool(chunk)


class Waiting:
    """Shows how long a command takes: a terminal has one line that is updated, else there is a line now and then."""

    def __init__(self, out: TextIO, every: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._every = every
        self._monotonic = monotonic
        self._started = self._told = monotonic()
        self._shown = False

    def tick(self) -> None:
        """Tell the seconds since the command was started, after a second without output."""
        now = self._monotonic()
        if self._out.isatty():
            self._shown = True
            self._write(f"{CLEAR}    ... {now - self._started:.0f} s")
        elif now - self._told >= self._every:
            self._told = now
            self._write(f"    ... {now - self._started:.0f} s\n")

    def clear(self) -> None:
        """Make room for a line of output."""
        self._told = self._monotonic()
        if self._shown:
            self._shown = False
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
