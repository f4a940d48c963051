"""The commands of the documentation back accounts and orders up, and restore them, on a real API server."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.installation import Installation

DOCS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
BLOCKS = "\n".join(re.findall(r"```text\n(.*?)```", DOCS, re.DOTALL))
COMMANDS = re.findall(r"^kms-acme ca (?:backup|restore) .*", BLOCKS, re.MULTILINE)


def run(installation: Installation, folder: Path, command: str, *more: str) -> str:
    """Run a command of the documentation as an administrator."""
    environment = {**os.environ, **installation.cluster.env, "KMS_ACME_PASSPHRASE": "a passphrase of the documentation"}
    line = (sys.executable, "-m", "kms_acme", *shlex.split(command)[1:], *more)
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.requirement("P6")
async def test_accounts_and_orders_come_back_and_their_clients_go_on(
    installation: Installation, team: str, tmp_path: Path
) -> None:
    kubectl, programs = installation.cluster.kubectl, installation.programs
    backup, dry_run, restore = COMMANDS
    eventually(lambda: "Terminating" not in kubectl("get", "namespaces"), seconds=60)  # their objects would come back
    async with installation.client(installation.open_profile(team)) as client:
        before = await client.obtain(["kept.test"], installation.answerer.add)
        run(installation, tmp_path, backup)
        programs.stop()
        kubectl("delete", "acmeorders,acmeaccounts", "--all", f"--namespace={team}")
        assert f"{team}/" in run(installation, tmp_path, dry_run, "--include-orders")
        assert not installation.objects("acmeorders", team)
        run(installation, tmp_path, restore, "--include-orders", "--yes")
        programs.start()
        await asyncio.to_thread(programs.wait_until_ready)  # meanwhile the client sees that its connections have ended
        (order,) = installation.objects("acmeorders", team)
        assert int(order["status"]["serialNumber"], 16) == before.leaf.serial_number
        after = await client.obtain(["kept.test"], installation.answerer.add)
    assert after.leaf.serial_number != before.leaf.serial_number
