"""Control planes that come up, that do not, and that are gone afterwards. Real programs: a test takes some seconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.cluster import sources
from e2e.cluster.cluster import Cluster
from e2e.cluster.control_plane import Binaries, ControlPlane
from e2e.cluster.errors import StartFailed, StateError
from e2e.cluster.processes import Deadline
from e2e.cluster.progress import Progress

pytestmark = pytest.mark.cluster

# Whoever runs the tests in the background has SIGINT ignored, which children inherit.
PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from e2e.cluster import Progress, running
with running(Path(sys.argv[1]), Progress(sys.stderr)):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return sources.binaries(os.environ, Progress(sys.stderr))


def descendants(folder: Path) -> set[int]:
    """Process ids of everything whose command line names this folder."""
    found = set()
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and (each / "cmdline").exists():
            try:
                if str(folder).encode() in (each / "cmdline").read_bytes():
                    found.add(int(each.name))
            except OSError:
                continue
    return found - {os.getpid()}


def gone(folder: Path, *, limit: float) -> bool:
    deadline = Deadline(limit)
    while descendants(folder) and deadline:
        time.sleep(0.05)
    return not descendants(folder)


@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_no_process_is_left_when_the_parent_is_killed(tmp_path: Path, killed_by: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert len(descendants(tmp_path)) == 7  # three guards, three components, the parent
        parent.send_signal(killed_by)
    assert gone(tmp_path, limit=30)


def test_two_control_planes_run_side_by_side_and_start_within_ten_seconds_of_work(
    tmp_path: Path, binaries: Binaries
) -> None:
    planes = [ControlPlane.create(tmp_path / name, binaries) for name in ("one", "two")]
    try:
        planes[0].start()
        # How long that takes is up to what else the machine does; how much there is to do is not.
        assert processor_seconds(tmp_path / "one") < 10
        planes[1].start()
        cluster, other = (Cluster(plane, folder=plane.folder) for plane in planes)
        cluster.kubectl("create", "namespace", "only-in-one")
        assert "NotFound" in other.kubectl("get", "namespace", "only-in-one", check=False)
    finally:
        for plane in planes:
            plane.stop()
    assert gone(tmp_path, limit=10)
    assert not (tmp_path / "one" / "etcd").exists()
    assert planes[0].audit_log.exists()


def test_a_component_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path, binaries: Binaries) -> None:
    broken = tmp_path / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho 'command failed: no such flag' >&2\nexit 1\n", encoding="ascii")
    broken.chmod(0o755)
    plane = ControlPlane.create(tmp_path / "cluster", replace(binaries, kube_apiserver=broken))
    with pytest.raises(StartFailed, match=r"(?s)kube-apiserver ended while it started.*command failed: no such flag"):
        plane.start()
    assert gone(tmp_path, limit=10)


def processor_seconds(folder: Path) -> float:
    """What all the processes of a folder have used of the processor so far."""
    fields = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in descendants(folder)]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


@pytest.mark.parametrize("port", ["etcd", "apiserver"])
def test_a_port_that_was_lost_to_somebody_else_is_replaced(
    tmp_path: Path, binaries: Binaries, taken: int, port: str
) -> None:
    created = ControlPlane.create(tmp_path, binaries)
    saved = json.loads((tmp_path / "cluster.json").read_text())
    saved["ports"][port] = taken
    (tmp_path / "cluster.json").write_text(json.dumps(saved))
    plane = ControlPlane.open(created.folder)
    try:
        plane.start()
        assert all(ControlPlane.open(tmp_path).running().values())
        assert str(taken) not in plane.endpoint.server
    finally:
        plane.stop()


def test_a_folder_without_a_cluster_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no cluster in"):
        ControlPlane.open(tmp_path)


def test_the_files_of_a_cluster_are_for_its_owner_only(cluster: Cluster) -> None:
    keys = list((cluster.kubeconfig.parent / "pki").iterdir())
    assert (cluster.kubeconfig.parent / "pki").stat().st_mode & 0o077 == 0
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
    assert len(keys) == 8
