"""What is said, and what is installed, where a node cannot run yet."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from e2e.cluster.errors import NoNode
from e2e.cluster.node import machine
from e2e.cluster.progress import Progress

MISSING = {"kms-acme-no-such-program": "no-such-package", "sh": "dash"}
APT = """#!/bin/sh
echo "$@" >>{folder}/asked
{action}
"""


@pytest.fixture
def lacking(tmp_path: Path) -> Path:
    """A machine on which a program is missing; what stands in for apt-get writes down what it was asked for."""
    (tmp_path / "bin").mkdir()
    return tmp_path


def apt(folder: Path, action: str) -> None:
    path = folder / "bin" / "apt-get"
    path.write_text(APT.format(folder=folder, action=action), encoding="ascii")
    path.chmod(0o755)


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}


def test_who_is_not_root_is_told_what_to_do() -> None:
    with pytest.raises(NoNode, match=r"needs root on Linux.*KMS_ACME_E2E_KUBECONFIG and KMS_ACME_E2E_IMAGE"):
        machine.prepare(Progress(io.StringIO()), {}, user=1000)


def test_what_is_missing_is_installed_after_the_lists_were_renewed(lacking: Path) -> None:
    apt(lacking, "exit 0")
    said = io.StringIO()
    machine.prepare(Progress(said), environment(lacking), user=0, packages=MISSING)
    update, install = (lacking / "asked").read_text().splitlines()
    assert update.endswith(" update")
    assert "install --yes --no-install-recommends" in install
    assert install.endswith(" no-such-package")
    assert "no-such-package" in said.getvalue()


def test_an_installation_that_fails_says_why(lacking: Path) -> None:
    apt(lacking, "echo 'E: Unable to locate package' >&2; exit 100")
    with pytest.raises(NoNode, match=r"(?s)apt-get update failed.*Unable to locate package"):
        machine.prepare(Progress(io.StringIO()), environment(lacking), user=0, packages=MISSING)


def test_the_folders_of_system_programs_are_on_path() -> None:
    assert machine.with_system_path({"PATH": "/bin"})["PATH"] == "/bin:/usr/local/sbin:/usr/sbin:/sbin"
