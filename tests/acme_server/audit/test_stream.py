"""Where the audit stream goes, and what it costs."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acme_server.audit.configuration import ConfigurationChanges
from acme_server.audit.record import schema
from acme_server.audit.stream import AuditStream, open_stream
from kms.resources.kinds import CREDENTIALS, PROFILES
from tests.support.acmeorders import certified
from tests.support.audit import Lines, members
from tests.support.processor import least_time

SCHEMA = Path(__file__).parents[3] / "docs" / "audit.schema.json"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def stream_to(destination: str) -> AuditStream:
    return AuditStream(open_stream(destination), replica="server-0", clock=lambda: NOW)


def write(stream: AuditStream) -> None:
    stream.on_order(lambda _namespace, _name: None, None, certified())


def test_the_published_schema_is_that_of_the_lines() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))


def test_a_file_that_was_renamed_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    stream = stream_to(str(path))
    write(stream)
    path.rename(tmp_path / "audit.log.1")
    write(stream)
    stream.close()
    for each in (path, tmp_path / "audit.log.1"):
        (line,) = each.read_text().splitlines()
        assert json.loads(line)["decision"] == "order.opened"


def test_standard_output_is_a_destination(capsys: pytest.CaptureFixture[str]) -> None:
    write(stream_to("-"))
    out, err = capsys.readouterr()
    assert (json.loads(out)["schema"], err) == ("kms-acme.audit/v1", "")


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        open_stream(str(tmp_path / "none" / "audit.log"))


def test_a_disk_that_is_full_is_logged_and_stops_no_request(caplog: pytest.LogCaptureFixture) -> None:
    stream = stream_to("/dev/full")
    write(stream)
    assert "audit stream cannot be written" in caplog.text
    with pytest.raises(OSError, match="No space"):
        stream.close()


def test_a_line_costs_little() -> None:
    """About 20 us: four of them are less than a hundredth of what an order costs."""
    order, handler = certified(), logging.NullHandler()
    stream = AuditStream(handler, replica="server-0", clock=lambda: NOW)

    def write_many() -> None:
        for _ in range(500):
            stream.on_order(lambda _namespace, _name: None, None, order)

    assert least_time(write_many) / 500 < 0.000_1


def test_without_a_destination_nothing_is_computed() -> None:
    def make(_: Any) -> None:
        raise AssertionError

    stream_to("").add(make)


def changed(name: str, generation: int) -> Any:
    metadata = SimpleNamespace(namespace="pki", name=name, uid=f"uid-{name}", generation=generation)
    return SimpleNamespace(metadata=metadata)


def test_changes_of_the_configuration_are_recorded_once_the_replica_leads() -> None:
    lines, leading = Lines(), [False]
    changes = ConfigurationChanges(lines.stream(), is_due=lambda: leading[0])
    changes.notice(PROFILES, changed("web", 1), False)  # the first list is no change
    leading[0] = True
    changes.notice(PROFILES, changed("web", 1), False)  # its status has changed
    changes.notice(PROFILES, changed("web", 2), False)
    changes.notice(CREDENTIALS, changed("team", 1), False)
    changes.notice(PROFILES, changed("web", 2), True)
    found = [members(each) for each in lines.take()]
    assert {each["decision"] for each in found} == {"configuration.changed"}
    assert {each["by"] for each in found} == {"administrator"}
    assert [(each["object"]["kind"], each["object"]["name"], each["object"]["change"]) for each in found] == [
        ("CertificateProfile", "web", "changed"),
        ("EABCredential", "team", "created"),
        ("CertificateProfile", "web", "deleted"),
    ]
