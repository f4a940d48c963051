"""Log lines: one event a line, whatever is in it."""

import fcntl
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

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


FIELDS = {"route": "/healthz", "status": 200, "account": None, "client": "192.0.2.1\x85"}


def written_often(format_: logs.Format, level: str = "info", *, handler: logging.Handler | None = None) -> str:
    stream = io.StringIO()
    logs.configure(format_, level, stream=stream)
    if handler is not None:
        logging.getLogger().addHandler(handler)
    logs.log_often(logging.getLogger("acme_server.api"), "request", FIELDS)
    return stream.getvalue()


@pytest.mark.parametrize("handler", [None, logging.NullHandler()])
def test_what_happens_often_is_logged_like_all_else(handler: logging.Handler | None) -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    logging.getLogger("acme_server.api").info("request", extra=FIELDS)
    usual, often = stream.getvalue(), written_often("json", handler=handler)
    assert len(often.splitlines()) == 1
    assert json.loads(usual) | {"time": 0} == json.loads(often) | {"time": 0}
    assert list(json.loads(usual)) == list(json.loads(often))
    assert len(usual) == len(often)


def test_what_happens_often_is_logged_as_text_and_only_at_its_level() -> None:
    assert written_often("text").endswith(
        " INFO  acme_server.api request route=/healthz status=200 client=192.0.2.1\\x85\n"
    )
    assert not written_often("json", "warning")


def test_what_happens_often_takes_turns_with_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, locked = io.StringIO(), []
    logs.configure("json", "info", stream=stream)
    monkeypatch.setattr("fcntl.lockf", lambda _, operation: locked.append(operation))
    with (tmp_path / "turns").open("wb") as turns:
        logs.take_turns(turns.fileno())
        logs.log_often(logging.getLogger("acme_server.api"), "request", FIELDS)
    assert locked == [fcntl.LOCK_EX, fcntl.LOCK_UN]
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("fault", ["closed stream", "surrogate"])
def test_a_log_that_cannot_be_written_stops_nothing(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    if fault == "closed stream":
        stream.close()
    logs.log_often(logging.getLogger("acme_server.api"), "request", FIELDS | {"client": "\ud800"})
    assert "Logging error" in capsys.readouterr().err
