"""`kms-acme certificates` and `explain` over ten thousand orders of a real API server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import aiohttp
import pytest

from e2e.load.copies import Etcd, Stored, copies
from e2e.load.writes import NAMESPACE
from tests.support.installation import Installation

pytestmark = pytest.mark.soak
ORDERS = 10_000


@pytest.fixture
def namespace(installation: Installation) -> Iterator[str]:
    """The namespace of the copies; afterwards the programs run again."""
    installation.cluster.kubectl("create", "namespace", NAMESPACE)
    yield NAMESPACE
    installation.cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    installation.programs.start()
    installation.programs.wait_until_ready()


MEASURED = """
import atexit, pathlib, runpy, sys
atexit.register(lambda: sys.stderr.write(pathlib.Path("/proc/self/status").read_text()))
runpy.run_module("kms_acme", run_name="__main__", alter_sys=True)
"""
"""The command, which says at its end what memory it needed: what the kernel tells its parent has the parent's in it."""


def run(installation: Installation, *line: str) -> tuple[str, float, int]:
    """What a command prints, the seconds that it takes, and the memory that it needs at most, in bytes."""
    begun = time.monotonic()
    environment = {**os.environ, **installation.cluster.env}
    command = (sys.executable, "-c", MEASURED, *line)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"^VmHWM:\s+(\d+) kB$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    return done.stdout, time.monotonic() - begun, int(found[1]) * 1024


async def fill(installation: Installation) -> Stored:
    """Write the copies of the first order while nothing watches: each one would be sent to all watchers."""
    installation.programs.stop()
    installation.cluster.stop_apiserver()
    async with aiohttp.ClientSession() as session:
        etcd = Etcd(session, installation.cluster.etcd_url)
        first = await etcd.first()
        await etcd.write(copies(first, ORDERS))
    installation.cluster.start_apiserver()
    return first


@pytest.mark.requirement("P3", "P1")
async def test_ten_thousand_orders_are_listed_and_one_is_explained(installation: Installation, namespace: str) -> None:
    async with installation.client(installation.open_profile(namespace)) as client:
        await client.obtain(["first.test"], installation.answerer.add)
    first = await fill(installation)
    for line in (("-o", "csv"), ("-o", "csv", "--not-renewed", "--expiring", "9999d")):
        printed, taken, memory = run(installation, "certificates", "--namespace", namespace, *line)
        print(f"certificates {' '.join(line)}: {taken:.1f} s, {memory / 2**20:.0f} MiB")
        assert len(printed.splitlines()) == 1 + ORDERS + 1
        assert memory < 200 * 2**20
        assert taken < 60, "usually 3 seconds"
    for what in (
        ("order", f"{namespace}/{first['metadata']['name']}"),
        ("certificate", first["status"]["serialNumber"]),
    ):
        _, taken, _ = run(installation, "explain", *what)
        print(f"explain {what[0]}: {taken:.2f} s")
        assert taken < 10, "usually below a second"
