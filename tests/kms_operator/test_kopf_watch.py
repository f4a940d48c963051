"""kopf on our terms: what it is told, whom it logs in as, and what becomes of an event."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
import pytest

from kms.resources.kinds import AUTHORITIES, SECRETS
from kms.resources.meta import ObjectMeta
from kms_operator import kopf_watch
from kms_operator.kopf_watch import KopfWatch, event_handler
from kms_operator.settings import OperatorSettings
from tests.support.apiserver import TOKEN, running_api
from tests.support.operated import SETTINGS


async def nobody() -> kopf.ConnectionInfo:
    raise kopf.LoginError


async def test_an_event_is_handed_over_as_a_resource() -> None:
    received: list[tuple[str, str | None, Any]] = []
    body = {"metadata": {"name": "x", "namespace": "pki", "managedFields": []}, "data": {"a": "YWJj"}, "kind": "Secret"}
    take = event_handler(SECRETS, deliver=lambda kind, type_, resource: received.append((kind.plural, type_, resource)))
    await take(event={"type": "ADDED", "object": body}, logger=None)
    ((plural, type_, resource),) = received
    assert (plural, type_, resource.data) == ("secrets", "ADDED", {"a": b"abc"})


@pytest.mark.requirement("SEC82")
async def test_an_object_that_cannot_be_read_is_handed_over_by_identity(
    caplog: pytest.LogCaptureFixture,
) -> None:
    received: list[tuple[object, str | None, Any]] = []
    take = event_handler(SECRETS, deliver=lambda *event: received.append(event))
    body = {"metadata": {"name": "x", "uid": "u", "resourceVersion": "7"}, "data": {"tls.key": ["hunter2"]}}
    await take(event={"type": "DELETED", "object": body}, logger=None)
    ((_, type_, unreadable),) = received
    assert type_ == "DELETED"
    assert unreadable.metadata == ObjectMeta(name="x", uid="u", resource_version="7")
    assert "object cannot be read" in caplog.text
    assert "hunter2" not in str([vars(each) for each in caplog.records])


def test_kopf_neither_writes_nor_scans_nor_kills() -> None:
    chosen = kopf_watch.settings()
    assert chosen.process.ultimate_exiting_timeout is None
    assert not chosen.posting.enabled
    assert chosen.scanning.disabled
    assert chosen.watching.server_timeout == 600


def test_no_handler_could_add_a_finalizer_or_an_annotation() -> None:
    registry = kopf_watch.registry([AUTHORITIES], deliver=lambda *_: None, login=nobody)
    assert not list(registry._changing.get_all_handlers())
    assert not list(registry._spawning.get_all_handlers())
    assert not list(registry._indexing.get_all_handlers())


async def test_the_login_reads_the_kubeconfig_anew_each_time(tmp_path: Path) -> None:
    async with running_api() as api:
        path = api.write_kubeconfig(tmp_path / "kubeconfig")
        login = kopf_watch.login(OperatorSettings("https://x.example", "kms-acme", kubeconfig=str(path)))
        first = await login()
        assert (first.server, first.scheme, first.token) == (api.url, "Bearer", TOKEN)
        assert first.expiration is not None
        assert first.expiration > datetime.now(UTC)
        api.write_kubeconfig(path, user={"token": "another"})
        assert (await login()).token == "another"


async def test_without_a_token_there_is_none(tmp_path: Path) -> None:
    async with running_api() as api:
        path = api.write_kubeconfig(tmp_path / "kubeconfig", user={})
        found = await kopf_watch.login(OperatorSettings("https://x.example", "kms-acme", kubeconfig=str(path)))()
        assert (found.scheme, found.token) == (None, None)


def test_what_was_stopped_before_it_ran_does_not_run() -> None:
    one = KopfWatch(SETTINGS, [AUTHORITIES], deliver=lambda *_: None, login=nobody)
    one.stop()
    one.run()
    one.stop()
