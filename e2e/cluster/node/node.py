"""One node: containerd, kubelet, kube-proxy and the cluster's DNS server in namespaces of their own, and the scheduler.

Everything about it is in its folder, as with the control plane: another process may open() it later.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Self

from e2e.cluster import credentials
from e2e.cluster.errors import CommandFailed, StartFailed, StateError
from e2e.cluster.kubeconfig import Endpoint, certificate_user
from e2e.cluster.kubeconfig import write as write_kubeconfig
from e2e.cluster.node import cgroups, configuration, namespaces
from e2e.cluster.node.images import BuiltImage
from e2e.cluster.node.machine import with_system_path
from e2e.cluster.node.network import Network
from e2e.cluster.processes import Deadline, Process, last_lines

_START_LIMIT = 120.0  # it takes three seconds on a machine that does nothing else
_STOP_LIMIT = 10.0
_POLL = 0.05
_PROGRAM = Path(namespaces.__file__)

KUBELET = f"system:node:{namespaces.NODE_NAME}"
PROXY = "system:kube-proxy"
SCHEDULER = "system:kube-scheduler"
DNS = "kms-acme-test-dns"
USERS = {
    KUBELET: "system:nodes",
    PROXY: credentials.COMPONENTS,
    SCHEDULER: credentials.COMPONENTS,
    DNS: credentials.COMPONENTS,
}
_HEALTH = (
    ("kubelet", configuration.KUBELET_HEALTH, "/healthz"),
    ("coredns", configuration.DNS_READY, "/ready"),
    ("kube-proxy", configuration.PROXY_HEALTH, "/healthz"),  # waits for the kubelet
)
_DATA = ("containerd", "kubelet", "scratch")
COMPONENTS = ("namespaces", "containerd", "kube-scheduler", "kube-proxy", "coredns", "kubelet")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of a node that are built from Go modules; the others are Debian's."""

    kubelet: Path
    kube_proxy: Path
    kube_scheduler: Path
    coredns: Path


class Node:
    """A node in a folder; its control plane is somebody else's."""

    def __init__(self, folder: Path, programs: Programs, network: Network, pause: BuiltImage) -> None:
        self._folder = folder
        self._programs = programs
        self._pause = pause
        self.network = network
        self._processes: dict[str, Process] = {}

    @classmethod
    def create(cls, folder: Path, programs: Programs, network: Network, pause: BuiltImage) -> Self:
        """Lay out a node in a folder that does not exist yet; nothing runs. `pause` holds the namespaces of pods."""
        for each in ("logs", "run", *_DATA):
            (folder / each).mkdir(parents=True, exist_ok=True)
        saved = {
            "number": network.number,
            "programs": {name: str(path) for name, path in asdict(programs).items()},
            "pause": [pause.reference, str(pause.archive)],
        }
        (folder / "node.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
        return cls(folder, programs, network, pause)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """A node that was created before, perhaps by another process.

        Raises:
            StateError: there is none in this folder.
        """
        try:
            saved = json.loads((folder / "node.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StateError(f"There is no node in {folder}.") from None
        programs = Programs(**{name: Path(path) for name, path in saved["programs"].items()})
        reference, archive = saved["pause"]
        return cls(folder, programs, Network(saved["number"]), BuiltImage(reference, Path(archive)))

    def log(self, component: str) -> Path:
        """Log of one of COMPONENTS."""
        return self._folder / "logs" / f"{component}.log"

    def running(self) -> dict[str, bool]:
        """Which components run."""
        return {name: self._find(name) is not None for name in COMPONENTS}

    def start_runtime(self) -> None:
        """Make the namespaces and the link, start containerd in them and load `pause`: no pod runs yet.

        Raises:
            StartFailed: with the last lines of the log of what did not come up.
        """
        self._init.unlink(missing_ok=True)
        self._run("namespaces", [*_python(), "hold", self._init, self._folder / "scratch", self._cgroup])
        self._wait("namespaces", self._init.exists)
        self.network.up(int(self._init.read_text(encoding="ascii")))
        self._linked.touch()
        configuration.pod_network(self._folder, self.network)
        runtime = configuration.containerd(self._folder, self._pause.reference)
        self._inside("containerd", ["containerd", f"--config={runtime}"])
        self._wait("containerd", self._runtime_listens)
        self.load(self._pause.archive)

    def start(self, endpoint: Endpoint, mine: credentials.Credentials, *, zones: Sequence[str]) -> None:
        """Start all the rest, and wait until it is healthy. The API server must answer.

        Raises:
            StartFailed: as above.
        """

        def kubeconfig(user: str) -> Path:
            path = self._folder / f"{user.replace(':', '-')}.kubeconfig"
            return write_kubeconfig(path, endpoint=endpoint, user=certificate_user(mine, user))

        network, programs = self.network, self._programs
        self._run(
            "kube-scheduler",
            [
                programs.kube_scheduler,
                f"--kubeconfig={kubeconfig(SCHEDULER)}",
                "--leader-elect=false",
                "--secure-port=0",
            ],
        )
        proxy = configuration.kube_proxy(self._folder, network, kubeconfig(PROXY))
        self._inside("kube-proxy", [programs.kube_proxy, f"--config={proxy}"])
        corefile = configuration.coredns(self._folder, network, kubeconfig(DNS), zones)
        self._inside("coredns", [programs.coredns, f"-conf={corefile}"])
        kubelet = configuration.kubelet(self._folder, network, mine)
        self._inside(
            "kubelet",
            [
                programs.kubelet,
                f"--config={kubelet}",
                f"--kubeconfig={kubeconfig(KUBELET)}",
                f"--root-dir={namespaces.PLACE / 'kubelet'}",
                f"--cert-dir={namespaces.PLACE / 'kubelet' / 'pki'}",
                f"--node-ip={network.node}",
            ],
        )
        for component, port, path in _HEALTH:
            self._wait(component, partial(_answers, network.node, port, path))

    def load(self, archive: Path) -> None:
        """Load an image from an archive.

        Raises:
            CommandFailed: with what containerd said.
        """
        self.run("ctr", "--namespace=k8s.io", "images", "import", archive)

    def run(self, *command: str | Path, limit: float = 120.0) -> str:
        """Run a command in the node's namespaces and return what it printed.

        Raises:
            CommandFailed: it ended with an error, or took longer than `limit` seconds.
        """
        words = [str(each) for each in command]
        try:
            done = subprocess.run(
                [*_python(), "enter", str(self._init), "--", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit,
                env=with_system_path(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(words[1:], -1, f"it did not end within {limit:.0f} s", program=words[0]) from None
        if done.returncode != 0:
            raise CommandFailed(words[1:], done.returncode, done.stderr or done.stdout, program=words[0])
        return done.stdout

    def stop(self) -> None:
        """End everything in it and around it. Logs stay; images, volumes and what containers wrote are removed."""
        for component in ("kube-scheduler", "namespaces", *COMPONENTS):
            if process := self._find(component) or self._processes.get(component):
                process.stop(_STOP_LIMIT)
        self._processes.clear()
        self._init.unlink(missing_ok=True)
        if self._linked.exists():
            self.network.down()  # the kernel does it, too, but only a little later
        cgroups.remove(self._cgroup)
        for each in _DATA:
            shutil.rmtree(self._folder / each, ignore_errors=True)

    def release(self) -> None:
        """Let all components go on after the end of this process."""
        for process in self._processes.values():
            process.release()

    @property
    def _init(self) -> Path:
        """The record of the first process in the namespaces."""
        return self._folder / "run" / "init"

    @property
    def _linked(self) -> Path:
        """Tells that the link is ours, and not that of another node which was quicker."""
        return self._folder / "run" / "linked"

    @property
    def _cgroup(self) -> str:
        return self.network.link

    def _runtime_listens(self) -> bool:
        """Whether containerd accepts connections on its socket, which has its name inside the node only."""
        init = self._init.read_text(encoding="ascii").strip()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"/proc/{init}/root{configuration.SOCKET}") == 0

    def _inside(self, component: str, command: Sequence[str | Path]) -> None:
        self._run(component, [*_python(), "enter", self._init, "--", *command])

    def _run(self, component: str, command: Sequence[str | Path]) -> None:
        record = self._folder / "run" / f"{component}.process"
        self._processes[component] = Process.start(
            command, log=self.log(component), record=record, env=with_system_path()
        )

    def _wait(self, component: str, ready: Callable[[], bool]) -> None:
        process, deadline = self._processes[component], Deadline(_START_LIMIT)
        while not ready():
            if not process.running() or not deadline:
                what = f"was not ready within {_START_LIMIT:.0f} s" if process.running() else "ended while it started"
                tail = last_lines(self.log(component))
                raise StartFailed(f"{component} {what}. The end of {self.log(component)}:\n{tail}")
            time.sleep(_POLL)

    def _find(self, component: str) -> Process | None:
        if mine := self._processes.get(component):
            return mine if mine.running() else None
        return Process.attach(self._folder / "run" / f"{component}.process")


def _python() -> tuple[str | Path, ...]:
    return (sys.executable, "-I", "-S", _PROGRAM)


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
