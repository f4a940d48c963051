"""Log lines for people (text) and for machines (json): one event per line, with fields.

Code calls `logger.info("order ready", extra={"order": name})`; each member of `extra` becomes a field. Secrets must not
be passed to a logger: the formatters do not filter them, they only keep each event on one line.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal, TextIO

import msgspec

Format = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (127, 0x85, 0x2028, 0x2029)}
"""Characters that JSON allows unescaped, but that many programs take for the end of a line."""
_root = logging.getLogger()


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The members of `extra`, in their order; those that are None are left out."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and value is not None}


def log_often(logger: logging.Logger, event: str, fields: Mapping[str, Any]) -> None:
    """`logger.info(event, extra=fields)` for what happens all the time, in less than half the time.

    Where JSON lines of this process are all that the log consists of, it needs neither a record nor a way through the
    loggers.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    match _root.handlers:
        case [JSONLines(turns=None) as lines]:
            lines.write(logger, event, fields)
        case _:
            logger.info(event, extra=fields)


@functools.lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    """The time to the second, cached: most lines have that of the line before."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(timestamp))


def escape_line_ends(json: str) -> str:
    """The JSON text without unescaped characters that many programs take for the end of a line."""
    return json if json.isascii() and "\x7f" not in json else json.translate(_JSON_ESCAPES)


class JSONFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, event, then the fields."""

    def __init__(self) -> None:
        super().__init__()
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """Encode the record; values that JSON cannot express become text."""
        fields = fields_of(record)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self.line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)

    def line(self, created: float, level: str, logger: str, event: str, fields: Mapping[str, Any]) -> str:
        """The line of an event at that time, in seconds since the epoch; no field may be None."""
        time_ = f"{_second(int(created))}.{int(created % 1 * 1000):03d}Z"
        line = {"time": time_, "level": level, "logger": logger, "event": event, **fields}
        return escape_line_ends(self._encode(line).decode())


class TextFormatter(logging.Formatter):
    """`14:07:31 INFO  acme_server.orders.service order ready order=abc`: for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line; a traceback follows on further lines."""
        fields = "".join(f" {key}={value}" for key, value in fields_of(record).items())
        line = f"{_second(int(record.created))[11:]} {record.levelname:<5} {record.name} {record.getMessage()}{fields}"
        # Names and contacts are untrusted: a line break in one of them must not look like a new event.
        line = line.translate(_ESCAPES)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class TurnHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Writes lines to a stream that other processes may write to as well.

    A pipe takes 4 KiB at once, and a long line in several parts. So that no part of another line comes in between,
    processes that share `turns`, a file descriptor, hold its record lock while they write. It ends with its process.
    """

    turns: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line when it is this process's turn."""
        if self.turns is None:
            super().emit(record)
            return
        fcntl.lockf(self.turns, fcntl.LOCK_EX)
        try:
            super().emit(record)
        finally:
            fcntl.lockf(self.turns, fcntl.LOCK_UN)


class JSONLines(TurnHandler):
    """Writes JSON lines, of records and without them."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._formatter = JSONFormatter()
        self.setFormatter(self._formatter)
        self._writing = self.lock or nullcontext()  # the lock of all handlers, without the calls to take it

    def write(self, logger: logging.Logger, event: str, fields: Mapping[str, Any]) -> None:
        """Write an event of level INFO without a record."""
        if None in fields.values():
            fields = {key: value for key, value in fields.items() if value is not None}
        try:
            line = self._formatter.line(time.time(), "info", logger.name, event, fields)
            with self._writing:
                self.stream.write(f"{line}\n")
                self.stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed, or a text has no UTF-8
            logger.info(event, extra=fields)  # logging reports what it cannot write, and goes on


def take_turns(turns: int) -> None:
    """Let the log of this process take turns with those of others that have the same file descriptor."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, TurnHandler):
            handler.turns = turns


def configure(format_: Format | None, level: str, *, stream: TextIO | None = None) -> None:
    """Log to `stream` (standard error) in `format_`; by default text on a terminal, else json."""
    # No format says where a line was logged, or by which thread: to find that out costs as much as the line itself
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None  # noqa: SLF001 - the switch that is documented there
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    stream = stream or sys.stderr
    chosen = format_ or ("text" if stream.isatty() else "json")
    root = logging.getLogger()
    root.handlers[:] = [_text_lines(stream) if chosen == "text" else JSONLines(stream)]
    root.setLevel(level.upper())
    # Below warning, these two log internals: reopened watches, reused connections.
    for chatty in ("kopf", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _text_lines(stream: TextIO) -> logging.Handler:
    handler = TurnHandler(stream)
    handler.setFormatter(TextFormatter())
    return handler
