"""axe-core, which finds what keeps people from using a page. From npm, of one version and with one digest."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from e2e.cluster import folders
from e2e.support.tools import Missing

VERSION = "4.14.1"
SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
"""Of the package."""
_MEMBER = "package/axe.min.js"
_LIMIT = 300.0


def axe(env: Mapping[str, str] = os.environ) -> str:
    """The script. Raises Missing without npm or its registry, or for a package with another digest."""
    package = folders.cache(env) / "npm" / f"axe-core-{VERSION}.tgz"
    if not package.exists():
        _pack(package)
    content = package.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        package.unlink()
        raise Missing(f"axe-core {VERSION} from npm has another digest than {SHA256}")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile(_MEMBER)
        if member is None:
            raise Missing(f"axe-core {VERSION} has no {_MEMBER}")
        return member.read().decode()


def _pack(package: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("npm is missing: apt-get install npm")
    package.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=package.parent) as folder:
        done = subprocess.run(
            [npm, "pack", f"axe-core@{VERSION}", "--ignore-scripts"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        packed = Path(folder) / package.name
        if done.returncode or not packed.exists():
            raise Missing(f"npm could not fetch axe-core: {done.stderr.strip()[-500:]}")
        packed.rename(package)
