"""Programs from PyPI in virtual environments of their own, outside the tree: other versions than the project has."""

from __future__ import annotations

import fcntl
import hashlib
import sys
import venv
from pathlib import Path

from e2e.cluster import Progress
from e2e.cluster.errors import NoSource
from e2e.cluster.processes import last_lines, run

_INSTALL_LIMIT = 600.0
_READY = ".ready"


def environment(requirements: Path, cache: Path, progress: Progress) -> Path:
    """The environment with exactly these requirements, which have hashes; it is created if missing.

    Of several callers, one creates it and the others wait. The name of the file's folder becomes part of its name.

    Raises:
        NoSource: the requirements cannot be installed, usually without network.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    home = cache / f"{requirements.parent.name}-{version}-{digest}"
    if not _usable(home):
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel frees it with the file
            if not _usable(home):
                _create(home, requirements, progress)
    return home


def _usable(home: Path) -> bool:
    """Whether the environment is complete, and the Python that it was made with still exists."""
    return (home / _READY).exists() and (home / "bin" / "python").exists()


def _create(home: Path, requirements: Path, progress: Progress) -> None:
    """Create the environment in its final place, since its programs name that."""
    log = home.with_suffix(".log")
    with progress.step(f"Installing {requirements.parent.name} from PyPI") as tick:
        venv.create(home, clear=True, with_pip=True, symlinks=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        pinned = ["--no-deps", "--require-hashes", "--only-binary=:all:", f"--requirement={requirements}"]
        if run([*pip, *pinned], log=log, limit=_INSTALL_LIMIT, tick=tick) != 0:
            raise NoSource(f"{requirements.parent.name} could not be installed from PyPI:\n{last_lines(log)}")
    (home / _READY).touch()
