"""`kms-acme doctor`: what it reads, what it may not read, and what does not answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from e2e.cluster.ports import free_port
from kms.resources.kinds import CREDENTIALS, PROFILES
from kms_acme.cli import main
from tests.support.apiserver import FakeApiServer, running_api, spoil
from tests.support.shown_cluster import fill


@dataclass
class Terminal:
    """An administrator's terminal, and the cluster of the page."""

    api: FakeApiServer
    kubeconfig: Path

    async def doctor(self, *line: str) -> Result:
        arguments = ["doctor", *line, "--kubeconfig", str(self.kubeconfig)]
        return await asyncio.to_thread(CliRunner().invoke, main.main, arguments)


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with running_api() as api:
        fill(api)
        yield Terminal(api, api.write_kubeconfig(tmp_path / "kubeconfig"))


@pytest.mark.requirement("P5")
async def test_a_directory_that_does_not_answer_and_a_right_that_lacks_are_found(terminal: Terminal) -> None:
    profile = terminal.api.read(PROFILES, "pki", "web")
    assert profile is not None
    url = f"https://127.0.0.1:{free_port()}/acme/pki/web/directory"
    terminal.api.put(PROFILES, replace(profile, status=replace(profile.status, directory_url=url)))
    terminal.api.allows = lambda spec: spec["resourceAttributes"]["verb"] != "watch"
    done = await terminal.doctor("-o", "json")
    findings = json.loads(done.output)
    assert done.exit_code == 3
    assert any(each["about"] == f"URL {url}" and "did not answer" in each["what"] for each in findings)
    lacking = {each["what"] for each in findings if each["about"] == "ServiceAccount of the server"}
    assert "may not watch secrets in namespace kms-acme" in lacking
    assert not any("may not get" in each["what"] for each in findings)


@pytest.mark.requirement("P5")
async def test_what_may_not_be_read_is_a_note_but_no_success_and_what_cannot_be_read_an_error(
    terminal: Terminal,
) -> None:
    terminal.api.fail_next("list", "secrets", 403)
    terminal.api.fail_next("get", "leases", 403, times=2)
    terminal.api.fail_next("create", "subjectaccessreviews", 403, times=500)
    done = await terminal.doctor("--offline", "-o", "json")
    assert done.exit_code == 1, done.output
    notes = {each["about"] for each in json.loads(done.output)}
    assert {"Secrets of namespace kms-acme", "Lease kms-acme/kms-acme-server"} <= notes
    assert "rights of the two ServiceAccounts (SubjectAccessReviews)" in notes


@pytest.mark.requirement("P5")
async def test_what_cannot_be_read_is_an_error(terminal: Terminal) -> None:
    spoil(terminal.api, CREDENTIALS, "web", "spec.expiresAt", "never")
    done = await terminal.doctor("--offline")
    assert (done.exit_code, "EABCredential pki/web: spec.expiresAt" in done.output) == (3, True), done.output


async def test_without_any_right_nothing_is_well(terminal: Terminal) -> None:
    for verb in ("get", "list", "create"):
        terminal.api.fail_next(verb, "*", 403, times=500)
    done = await terminal.doctor("--offline")
    assert done.exit_code == 1, done.output
    assert "No problem found, but 11 things were not looked at." in done.output
    assert "CertificateAuthorities was not looked at" in done.output
    assert not re.search(r"\w+[^e]ys\b", done.output), done.output


async def test_nothing_is_written(terminal: Terminal) -> None:
    await terminal.doctor("--offline")
    assert {each.plural for each in terminal.api.writes} == {"subjectaccessreviews"}
