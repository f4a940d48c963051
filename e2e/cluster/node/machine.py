"""Checks whether this machine can run a node, and installs the Debian packages for it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.errors import NoNode
from e2e.cluster.processes import last_lines, run
from e2e.cluster.progress import Progress

_LIMIT = 900.0
_APT = ("apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300")
PACKAGES = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "runc": "runc",
    "unshare": "util-linux",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
}
"""Programs, each with its package."""
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Folders of system programs that may be missing on a user's PATH."""


def prepare(
    progress: Progress,
    env: Mapping[str, str] = os.environ,
    *,
    user: int | None = None,
    packages: Mapping[str, str] = PACKAGES,
) -> None:
    """Install missing packages. `user` is the user id; None means that of this process.

    Raises:
        NoNode: this is not Linux, we are not root, or apt-get is missing or fails. The text says what to do.
    """
    if sys.platform != "linux" or (os.geteuid() if user is None else user) != 0:
        raise NoNode(
            "A node needs root on Linux, to create namespaces, links and control groups. Run it as root, or name your "
            "own cluster: KMS_ACME_E2E_KUBECONFIG and KMS_ACME_E2E_IMAGE."
        )
    wanted = missing(env, packages)
    if not wanted:
        return
    if shutil.which("apt-get", path=_path(env)) is None:
        raise NoNode(f"A node needs the Debian packages {', '.join(wanted)}, and there is no apt-get to install them.")
    with tempfile.TemporaryDirectory(prefix="kms-acme-apt-") as folder:
        log = Path(folder, "log")
        with progress.step(f"Installing {', '.join(wanted)} from Debian") as tick:
            for arguments in (("update",), ("install", "--yes", "--no-install-recommends", *wanted)):
                if run([*_apt(env), *arguments], log=log, limit=_LIMIT, tick=tick, env=_quiet(env)) != 0:
                    raise NoNode(f"apt-get {' '.join(arguments)} failed:\n{last_lines(log)}")


def with_system_path(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment with the folders of system programs on PATH."""
    return {**env, "PATH": _path(env)}


def missing(env: Mapping[str, str] = os.environ, packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """The missing packages."""
    return sorted(package for program, package in packages.items() if not _there(program, env))


def _there(program: str, env: Mapping[str, str]) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program, path=_path(env)) is not None


def _apt(env: Mapping[str, str]) -> list[str]:
    return [shutil.which(_APT[0], path=_path(env)) or _APT[0], *_APT[1:]]


def _quiet(env: Mapping[str, str]) -> dict[str, str]:
    return {**with_system_path(env), "DEBIAN_FRONTEND": "noninteractive"}


def _path(env: Mapping[str, str]) -> str:
    before = env.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*before, *(each for each in _SYSTEM if each not in before)])
