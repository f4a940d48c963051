"""Log lines: one event a line, whatever is in it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kms import logs


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str = "order ready", **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "acme_server.orders.service", "levelname": "INFO", "msg": message, **extra})


def test_a_json_line_names_the_event_and_its_fields() -> None:
    line = json.loads(logs.JSONFormatter().format(record(order="abc", serial=None, names=("a", "b"))))
    assert line["event"] == "order ready"
    assert line["level"] == "info"
    assert line["order"] == "abc"
    assert line["names"] == ["a", "b"]
    assert line["time"].endswith("Z")
    assert "serial" not in line


def test_a_value_that_json_does_not_know_is_written_as_text() -> None:
    assert json.loads(logs.JSONFormatter().format(record(error=OSError("gone"))))["error"] == "gone"


def test_a_text_line_reads_left_to_right() -> None:
    line = logs.TextFormatter().format(record(order="abc"))
    assert line.endswith("INFO  acme_server.orders.service order ready order=abc")


@pytest.mark.requirement("SEC33")
@given(st.text())
@example("\x85 \u2028 \u2029 \x1c \r\n")
def test_no_field_can_forge_a_second_line(text: str) -> None:
    for formatter in (logs.TextFormatter(), logs.JSONFormatter()):
        assert len(formatter.format(record(contact=text)).splitlines()) == 1
    assert json.loads(logs.JSONFormatter().format(record(contact=text)))["contact"] == text


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JSONFormatter()])
def test_a_traceback_is_kept(formatter: logging.Formatter) -> None:
    with pytest.raises(ValueError, match="surprise") as caught:
        int("surprise")
    line = formatter.format(record(exc_info=(caught.type, caught.value, caught.tb)))
    assert "surprise" in line
    assert "Traceback" in line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "format_", "is_json"),
    [(Terminal(), None, False), (io.StringIO(), None, True), (Terminal(), "json", True)],
)
def test_a_terminal_gets_text_and_everything_else_json(
    stream: io.StringIO, format_: logs.Format | None, is_json: bool
) -> None:
    logs.configure(format_, "info", stream=stream)
    logging.getLogger("acme_server").warning("hello")
    logging.getLogger("kopf.something").info("not shown")
    assert stream.getvalue().startswith("{") == is_json
    assert "hello" in stream.getvalue()
    assert "not shown" not in stream.getvalue()
