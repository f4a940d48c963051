"""Nodes that come up, that do not, and of which nothing is left afterwards. Each of these tests starts its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.cluster import Progress
from e2e.cluster.errors import NoNode, StartFailed
from e2e.cluster.fixtures import unavailable
from e2e.cluster.node import NodeCluster, machine
from e2e.cluster.processes import Deadline
from tests.e2e.cluster.node.traces import left, traces

pytestmark = pytest.mark.node

PARENT = """
import signal, sys, time
from pathlib import Path
from e2e.cluster import Progress
from e2e.cluster.node import running_node
signal.signal(signal.SIGINT, signal.default_int_handler)
with running_node(Path(sys.argv[1]), Progress(sys.stderr)):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _possible() -> None:
    """Skip where this machine cannot run a node."""
    try:
        machine.prepare(Progress(sys.stderr))
    except NoNode as reason:
        unavailable(str(reason))


def test_after_ctrl_c_nothing_is_left(tmp_path: Path) -> None:
    before = traces()
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "c")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert {each.split()[0] for each in traces() - before} >= {"link", "route", "group"}
        parent.send_signal(signal.SIGINT)
    assert not left(tmp_path, before, limit=5)


def test_after_a_kill_only_control_groups_are_left_and_down_removes_them(tmp_path: Path) -> None:
    before, folder = traces(), tmp_path / "c"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
    NodeCluster.open(folder, Progress(sys.stderr)).stop()
    assert not left(tmp_path, before, limit=10)


def test_after_a_failure_half_way_nothing_is_left_and_the_component_is_named(tmp_path: Path) -> None:
    before, folder = traces(), tmp_path / "c"
    cluster = NodeCluster.create(folder, Progress(sys.stderr))
    saved = json.loads((folder / "node" / "node.json").read_text(encoding="utf-8"))
    saved["programs"]["coredns"] = str(tmp_path / "program")
    (folder / "node" / "node.json").write_text(json.dumps(saved), encoding="utf-8")
    (tmp_path / "program").write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n", encoding="ascii")
    (tmp_path / "program").chmod(0o755)
    cluster = NodeCluster.open(folder, Progress(sys.stderr))
    with pytest.raises(StartFailed, match=r"(?s)coredns ended while it started.*no such flag"):
        cluster.start()
    assert not left(tmp_path, before, limit=5)


def test_after_ctrl_c_half_way_through_up_nothing_is_left(tmp_path: Path) -> None:
    before, deadline = traces(), Deadline(60)
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "e2e.cluster", "up", "--node"]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as up:
        while not any(each.startswith("link ") for each in traces() - before):
            assert deadline
            time.sleep(0.05)
        up.send_signal(signal.SIGINT)
    assert up.returncode == 1
    assert not left(tmp_path, before, limit=5)


def test_from_up_to_down_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    before = traces()

    def cluster(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "e2e.cluster", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)

    try:
        up = cluster("up", "--node")
        assert up.returncode == 0, up.stderr
        assert "Pods can run kms-acme.test/kms-acme:" in up.stderr
        status = cluster("status")
        assert status.returncode == 0
        assert "kubelet" in status.stdout
        assert cluster("up", "--node").stdout == up.stdout
    finally:
        down = cluster("down")
    assert down.returncode == 0
    assert not left(tmp_path, before, limit=5)
