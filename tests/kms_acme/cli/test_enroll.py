"""`kms-acme enroll`: the facts of the cluster, as far as the person may read them. e2e/stories runs what it prints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from kms.resources.credentials import CredentialStatus
from kms.resources.kinds import CREDENTIALS, PROFILES, SECRETS
from kms_acme.cli import main
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.shown_cluster import DIRECTORY, KEY, KID, PEM, fill


@dataclass
class Terminal:
    """An administrator's terminal, and the cluster of the page."""

    api: FakeApiServer
    kubeconfig: Path

    async def enroll(self, *line: str, client: str = "certbot") -> Result:
        arguments = ["enroll", "-p", "pki/web", "--client", client, *line, "--kubeconfig", str(self.kubeconfig)]
        return await asyncio.to_thread(CliRunner().invoke, main.main, arguments)


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with running_api() as api:
        fill(api)
        yield Terminal(api, api.write_kubeconfig(tmp_path / "kubeconfig"))


@pytest.mark.requirement("P4")
async def test_the_key_is_printed_only_where_that_is_asked_for(terminal: Terminal) -> None:
    done = await terminal.enroll("--credential", "pki/web")
    assert done.exit_code == 0, done.output
    assert (DIRECTORY in done.stdout, KID in done.stdout, PEM in done.stdout) == (True, True, True)
    assert KEY not in done.output
    assert "kubectl -n pki get secret web-eab" in done.stdout
    done = await terminal.enroll("--credential", "pki/web", "--reveal", "--name", "a.example.com", "--email", "a@b.c")
    assert f"SECRET={KEY}\n" in done.stdout
    assert "--domain a.example.com" in done.stdout
    assert "--email a@b.c" in done.stdout
    assert (await terminal.enroll("--reveal")).exit_code == 2


async def test_without_a_credential_the_reader_puts_in_his_own(terminal: Terminal) -> None:
    done = await terminal.enroll(client="lego")
    assert (done.exit_code, "KID=KID-OF-YOUR-CREDENTIAL" in done.stdout) == (0, True)


async def test_a_tenant_needs_no_more_than_his_credential_and_its_secret(terminal: Terminal) -> None:
    terminal.api.fail_next("get", "certificateprofiles", 403)
    done = await terminal.enroll("--credential", "pki/web")
    assert (done.exit_code, DIRECTORY in done.stdout, PEM in done.stdout) == (0, True, True), done.output


async def test_what_is_not_known_is_said(terminal: Terminal) -> None:
    terminal.api.fail_next("get", "secrets", 403, times=2)
    done = await terminal.enroll("--credential", "pki/web")
    assert done.exit_code == 0
    assert "Not known: the CA of the server, because no Secret may be read: pki/web-eab, pki/web-acme." in done.stderr
    terminal.api.remove(SECRETS, "pki", "web-eab")
    done = await terminal.enroll("--credential", "pki/web", "--reveal")
    assert (done.exit_code, "Secret pki/web-eab cannot be read" in done.output) == (1, True)
    credential = terminal.api.read(CREDENTIALS, "pki", "web")
    assert credential is not None
    terminal.api.put(CREDENTIALS, replace(credential, status=CredentialStatus()))
    assert "it has no key identifier yet" in (await terminal.enroll("--credential", "pki/web")).output
    assert "there is no EABCredential pki/none" in (await terminal.enroll("--credential", "pki/none")).output
    terminal.api.remove(PROFILES, "pki", "web")
    terminal.api.remove(SECRETS, "pki", "web-acme")
    done = await terminal.enroll()
    assert (done.exit_code, "there is no CertificateProfile pki/web" in done.output) == (1, True)


async def test_a_client_that_cannot_prove_names_here_is_exit_code_3(terminal: Terminal) -> None:
    done = await terminal.enroll("--name", "*.apps.example.com", client="caddy")
    assert (done.exit_code, "Caddy proves names with" in done.stderr) == (3, True)
