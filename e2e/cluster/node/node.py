"""A node: containerd, kubelet, kube-proxy and the DNS server of the cluster in their own namespaces, and the scheduler.

As with the control plane, its folder has all its files, so another process can open() it later.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Self

from e2e.cluster import credentials
from e2e.cluster.errors import CommandFailed, StateError
from e2e.cluster.kubeconfig import Endpoint, certificate_user
from e2e.cluster.kubeconfig import write as write_kubeconfig
from e2e.cluster.node import cgroups, configuration, namespaces
from e2e.cluster.node.images import BuiltImage
from e2e.cluster.node.machine import with_system_path
from e2e.cluster.node.network import Network
from e2e.cluster.processes import Process
from e2e.cluster.readiness import is_ok, wait_until

_START_LIMIT = 120.0  # three seconds on an idle machine
_STOP_LIMIT = 10.0
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
    """The programs of a node that are built from Go modules; the others come from Debian."""

    kubelet: Path
    kube_proxy: Path
    kube_scheduler: Path
    coredns: Path


class Node:
    """A node in a folder, without its control plane."""

    def __init__(self, folder: Path, programs: Programs, network: Network, pause: BuiltImage) -> None:
        self._folder = folder
        self._programs = programs
        self._pause = pause
        self.network = network
        self._processes: dict[str, Process] = {}

    @classmethod
    def create(cls, folder: Path, programs: Programs, network: Network, pause: BuiltImage) -> Self:
        """Prepare a new node in a folder. `pause` is the image that holds the namespaces of pods."""
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
        """Open an existing node.

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
        """The log of one of COMPONENTS."""
        return self._folder / "logs" / f"{component}.log"

    def running(self) -> dict[str, bool]:
        """Which components run."""
        return {name: self._find(name) is not None for name in COMPONENTS}

    def start_runtime(self) -> None:
        """Create the namespaces and the link, start containerd and load `pause`. No pods run yet.

        Raises:
            StartFailed: a component did not start; the text has the end of its log.
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
        """Start the other components, and wait until they are healthy. The API server must run.

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
            self._wait(component, partial(_is_healthy, network.node, port, path))

    def load(self, archive: Path) -> None:
        """Load an image from an archive.

        Raises:
            CommandFailed: with containerd's error message.
        """
        self.run("ctr", "--namespace=k8s.io", "images", "import", archive)

    def run(self, *command: str | Path, limit: float = 120.0) -> str:
        """Run a command in the node's namespaces and return its output.

        Raises:
            CommandFailed: it failed, or took longer than `limit` seconds.
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
        """Stop the node. Logs stay; images, volumes and the data of containers are removed."""
        for component in ("kube-scheduler", "namespaces", *COMPONENTS):
            if process := self._find(component) or self._processes.get(component):
                process.stop(_STOP_LIMIT)
        self._processes.clear()
        self._init.unlink(missing_ok=True)
        if self._linked.exists():
            self.network.down()  # the kernel would do so a little later
        cgroups.remove(self._cgroup)
        for each in _DATA:
            shutil.rmtree(self._folder / each, ignore_errors=True)

    def release(self) -> None:
        """Keep all components running after the end of this process."""
        for process in self._processes.values():
            process.release()

    @property
    def _init(self) -> Path:
        """The record of the first process in the namespaces."""
        return self._folder / "run" / "init"

    @property
    def _linked(self) -> Path:
        """Marks the link as ours, and not that of a concurrent node."""
        return self._folder / "run" / "linked"

    @property
    def _cgroup(self) -> str:
        return self.network.link

    def _runtime_listens(self) -> bool:
        """Whether containerd accepts connections on its socket inside the node."""
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
        wait_until(ready, component, self._processes[component], log=self.log(component), limit=_START_LIMIT)

    def _find(self, component: str) -> Process | None:
        if mine := self._processes.get(component):
            return mine if mine.running() else None
        return Process.attach(self._folder / "run" / f"{component}.process")


def _python() -> tuple[str | Path, ...]:
    return (sys.executable, "-I", "-S", _PROGRAM)


def _is_healthy(host: str, port: int, path: str) -> bool:
    return is_ok(http.client.HTTPConnection(host, port, timeout=2), path)
