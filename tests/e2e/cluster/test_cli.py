"""`python -m e2e.cluster`, as a person types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs the command line with a state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "e2e.cluster", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)

    yield run
    run("down")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["up", "--name", "Not A Name"], "lowercase letters, digits and '-'"),
        (["down", "--force"], "No such option"),
    ],
)
def test_wrong_use_ends_with_status_2_and_says_what_is_wrong(run: Run, args: list[str], complaint: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_the_help_shows_the_whole_way(run: Run) -> None:
    shown = run("--help").stdout
    for each in ("up --install", 'eval "$(python -m e2e.cluster env)"', "kubectl get kms -A", "down"):
        assert each in shown


def test_a_cluster_that_does_not_run(run: Run) -> None:
    assert run("status").returncode == 3
    assert run("down").returncode == 0
    asked = run("env", "--name", "other")
    assert asked.returncode == 1
    assert "python -m e2e.cluster up --name other" in asked.stderr


@pytest.mark.cluster
def test_a_cluster_from_up_to_down(run: Run, tmp_path: Path) -> None:
    up = run("up")
    assert up.returncode == 0, up.stderr
    kubeconfig = tmp_path / "kms-acme" / "clusters" / "default" / "kubeconfig"
    assert up.stdout == f"{kubeconfig}\n"
    assert run("status").returncode == 0
    shell = subprocess.run(
        ["/bin/sh", "-euc", f'eval "$({sys.executable} -m e2e.cluster env)"; kubectl get namespace default -o name'],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert shell.stdout == "namespace/default\n", shell.stderr
    assert run("up").stdout == up.stdout
    assert run("down").returncode == 0
    assert run("status").returncode == 3
    assert not kubeconfig.exists()
