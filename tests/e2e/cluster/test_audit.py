"""Reading an audit log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.cluster.audit import AuditLog, Request, RequestKey

SERVER = "system:serviceaccount:kms-acme:kms-acme-server"


def event(verb: str, target: dict[str, str] | None = None, *, stage: str = "ResponseComplete", code: int = 200) -> str:
    return json.dumps(
        {
            "user": {"username": SERVER},
            "verb": verb,
            "stage": stage,
            "requestURI": "/uri",
            "userAgent": "kms-acme/0.1.0",
            "responseStatus": {"code": code},
            "objectRef": target or {},
        }
    )


class Log:
    """An audit log that grows, and its reader."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(event("create", {"resource": "pods"}) + "\n")
        self.read = AuditLog(path)

    def add(self, *lines: str, end: str = "\n") -> None:
        with self.path.open("a") as log:
            log.write("\n".join(lines) + end)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit.log")


def test_only_what_comes_after_the_mark_counts(log: Log) -> None:
    assert log.read.requests() == []
    log.add(event("get", {"resource": "secrets", "name": "one", "namespace": "pki"}))
    assert log.read.requests() == [
        Request(SERVER, "get", "secrets", "", "pki", "one", 200, "kms-acme/0.1.0", "/uri"),
    ]
    log.read.mark()
    assert log.read.requests() == []


def test_requests_are_counted_by_user_verb_resource_and_subresource(log: Log) -> None:
    order = {"resource": "acmeorders", "apiGroup": "pki.kms.hanzo.ai"}
    log.add(event("create", order, code=201), *[event("update", {**order, "subresource": "status"})] * 2)
    resource = "acmeorders.pki.kms.hanzo.ai"
    expected = {RequestKey(SERVER, "create", resource, ""): 1, RequestKey(SERVER, "update", resource, "status"): 2}
    assert log.read.counts(user="serviceaccount:kms-acme:kms-acme-server") == expected
    assert log.read.counts(resource="acmeorders") == expected
    assert log.read.counts(resource=resource, user=SERVER, user_agent="kms-acme/") == expected
    assert (log.read.writes(), log.read.reads()) == (3, 0)
    assert not log.read.counts(user="somebody")
    assert not log.read.counts(resource="secrets")
    assert not log.read.counts(user_agent="kubectl")


def test_a_watch_counts_once_when_it_opens_and_once_when_it_is_refused(log: Log) -> None:
    log.add(event("watch", stage="ResponseStarted"), event("watch"), event("watch", code=403))
    assert [each.status for each in log.read.requests()] == [200, 403]
    assert log.read.reads() == 0


def test_a_line_that_is_being_written_is_left_for_later(log: Log) -> None:
    whole = event("list", {"resource": "secrets"})
    log.add(whole[:20], end="")
    assert log.read.requests() == []
    log.add(whole[20:])
    assert log.read.reads(resource="secrets") == 1


def test_a_path_that_is_no_resource_is_counted_without_one(log: Log) -> None:
    log.add(event("get"))
    assert [each.resource for each in log.read.requests()] == [""]
