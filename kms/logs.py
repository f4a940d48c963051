"""Log lines for people (text) and for machines (json): one event a line, fields instead of sentences.

Code says `logger.info("order ready", extra={"order": name})`; what is in `extra` becomes a field. Nothing secret is
ever handed to a logger; the formatters do not look for secrets, they only keep each event on one line.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from typing import Any, Literal, TextIO

import msgspec

Format = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (127, 0x85, 0x2028, 0x2029)}
"""What JSON may hold as it is, and many programs take for the end of a line."""


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, in the order in which it was given; fields without a value are left out."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and value is not None}


def _time_of(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@functools.lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    """Most lines are of the same second as the one before."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(timestamp))


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the fields."""

    def __init__(self) -> None:
        super().__init__()
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """Encode the record; values that JSON does not know are written as text."""
        line = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encode(line).decode().translate(_JSON_ESCAPES)


class TextFormatter(logging.Formatter):
    """`14:07:31 INFO  acme_server.orders.service order ready order=abc`: for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record on one line; a traceback follows on lines of its own."""
        fields = "".join(f" {key}={value}" for key, value in fields_of(record).items())
        line = f"{_time_of(record)[11:19]} {record.levelname:<5} {record.name} {record.getMessage()}{fields}"
        # Names and contacts come from outside: a line break in one of them must not look like a line of ours.
        line = line.translate(_ESCAPES)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(format_: Format | None, level: str, *, stream: TextIO | None = None) -> None:
    """Send all logging of the process to `stream` (standard error), in `format_`: text on a terminal, else json."""
    stream = stream or sys.stderr
    chosen = format_ or ("text" if stream.isatty() else "json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if chosen == "text" else JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What these two say below warning is about their own insides: watches reopened, connections reused.
    for chatty in ("kopf", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
