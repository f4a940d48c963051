"""Whether this machine can run a node, and the packages of Debian that it takes."""

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
"""Programs, each with the package that has it."""
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where they are, too, and where PATH of a person may not look."""


def prepare(
    progress: Progress,
    env: Mapping[str, str] = os.environ,
    *,
    user: int | None = None,
    packages: Mapping[str, str] = PACKAGES,
) -> None:
    """See to it that all packages are there. `user` None: whoever we are.

    Raises:
        NoNode: this is not Linux, or we are not root, or there is no apt-get, or it fails. The text says what to do.
    """
    if sys.platform != "linux" or (os.geteuid() if user is None else user) != 0:
        raise NoNode(
            "A node needs root on Linux (it makes namespaces, links and control groups). Run it as root, or name a "
            "cluster of your own: KMS_ACME_E2E_KUBECONFIG and KMS_ACME_E2E_IMAGE."
        )
    wanted = missing(env, packages)
    if not wanted:
        return
    if shutil.which("apt-get", path=_path(env)) is None:
        raise NoNode(f"A node needs what Debian calls {', '.join(wanted)}, and there is no apt-get to install it.")
    with tempfile.TemporaryDirectory(prefix="kms-acme-apt-") as folder:
        log = Path(folder, "log")
        with progress.step(f"Installing {', '.join(wanted)} from Debian") as tick:
            for arguments in (("update",), ("install", "--yes", "--no-install-recommends", *wanted)):
                if run([*_apt(env), *arguments], log=log, limit=_LIMIT, tick=tick, env=_quiet(env)) != 0:
                    raise NoNode(f"apt-get {' '.join(arguments)} was not successful:\n{last_lines(log)}")


def with_system_path(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment with the folders of system programs on PATH."""
    return {**env, "PATH": _path(env)}


def missing(env: Mapping[str, str] = os.environ, packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """The packages that are not there."""
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
