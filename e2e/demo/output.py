"""The output of a command by line, and progress during silence."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable
from typing import TextIO

CLEAR = "\r\x1b[K"
"""Return to the start of the terminal line and erase it."""


class Lines:
    """Splits output into lines and passes each to `show` as soon as it is complete."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""
        self.text = ""

    def take(self, chunk: bytes) -> bool:
        """Add a chunk of output. Returns False for an empty chunk, which is the end."""
        text = self._decode(chunk, final=not chunk)
        self.text += text
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._show(line)
        if not chunk and self._rest:
            self._show(self._rest)
        return bool(chunk)


class Waiting:
    """Shows the elapsed time of a command: in one updated line on a terminal, in occasional lines elsewhere."""

    def __init__(self, out: TextIO, every: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._every = every
        self._monotonic = monotonic
        self._started = self._told = monotonic()
        self._shown = False

    def tick(self) -> None:
        """Show the seconds since the start of the command, after a second of silence."""
        now = self._monotonic()
        if self._out.isatty():
            self._shown = True
            self._write(f"{CLEAR}    ... {now - self._started:.0f} s")
        elif now - self._told >= self._every:
            self._told = now
            self._write(f"    ... {now - self._started:.0f} s\n")

    def clear(self) -> None:
        """Erase the progress line before output."""
        self._told = self._monotonic()
        if self._shown:
            self._shown = False
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
