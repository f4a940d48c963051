"""`kms-acme console`: it prints an address that works once, and stops on Ctrl-C."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from kms_acme.cli.console import console
from tests.support.apiserver import running_api
from tests.support.shown_cluster import fill

pytestmark = pytest.mark.requirement("P8")


async def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    async with running_api() as api:
        fill(api)
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "kms_acme", "console", "--no-browser", "-n", "pki", "--kubeconfig", str(kubeconfig)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "BROWSER": "false"},
        )
        assert program.stdout is not None
        async with asyncio.timeout(60):
            url = (await program.stdout.readline()).decode().strip()
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                async with session.get(url) as answer:
                    assert (answer.status, "namespace pki" in await answer.text()) == (200, True)
                # An open page does not delay the end.
                stream = await session.get(str(answer.url) + "changes")
                program.send_signal(signal.SIGINT)
                printed, told = await program.communicate()
                stream.close()
        assert (program.returncode, printed) == (0, b"")
        assert told.decode() == "The address works once. Press Ctrl-C to stop.\nStopped.\n"
        assert {each.namespace for each in api.requests} == {"pki"}
        assert api.writes == []


def test_without_jinja2_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = CliRunner().invoke(console, [])
    expected = "Error: kms-acme console needs jinja2: pip install 'kms-acme[console]'\n"
    assert (done.exit_code, done.output) == (1, expected)


async def test_a_port_in_use_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    async with running_api() as api:
        kubeconfig = str(api.write_kubeconfig(tmp_path / "kubeconfig"))
        line = ["--no-browser", "--kubeconfig", kubeconfig, "--port", str(api.port)]
        done = await asyncio.to_thread(CliRunner().invoke, console, line)
    expected = f"Error: 127.0.0.1:{api.port} cannot be used: Address already in use\n"
    assert (done.exit_code, done.output) == (1, expected)
