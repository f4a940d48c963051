"""Copies what the programs need at run time from a base image, and nothing else: no shell, no package manager.

    python3 collect_files.py /image > files

That is the interpreter with its standard library, the virtual environment, every shared library that one of them
loads, the certificates of public CAs, and a few files of configuration. Prints the path of each file that was copied.
It runs in the build of the image, with the base's interpreter and without other packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ENVIRONMENT = Path("/opt/kms-acme")
COMMANDS = re.compile(r"python[0-9.]*|kms-acme")
"""What is copied of the environment's bin; scripts of dependencies and for shells are not."""
LEFT_OUT = frozenset(
    {
        *("site-packages", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests"),
        *("tkinter", "turtledemo", "curses", "dbm", "distutils", "sqlite3"),
    }
)
"""Folders of the standard library that no program of ours imports."""
_EXTENSIONS_LEFT_OUT = re.compile(
    r"(_curses|_curses_panel|_dbm|_gdbm|_sqlite3|_test.*|_tkinter|_xx.*|nis|readline|xx.*)\."
)
_LOADED_LATER = ("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
"""Libraries that no file names: the C library loads them when a thread ends and when it looks up a name."""
CONFIGURATION = (
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/openssl.cnf", "/usr/lib/ssl/cert.pem", "/usr/lib/ssl/certs"),
    *("/usr/lib/ssl/openssl.cnf", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/os-release", "/etc/protocols"),
)
_ACCOUNTS = {
    "/etc/passwd": "root:x:0:0:root:/:/nonexistent\n",
    "/etc/group": "root:x:0:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
_ELF = b"\x7fELF"
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")


class Collection:
    """Copies into `target`, each file once, with the symbolic links on the way to it."""

    def __init__(self, target: Path, *, root: Path = Path("/")) -> None:
        self._target = target
        self._root = root
        self.files: set[Path] = set()
        """The files that were copied, by their real paths in the base."""

    def add(self, path: Path) -> None:
        """Copy the file; a link together with what it leads to. A path that leads nowhere is left out."""
        done, ahead = Path("/"), list(path.parts[1:])
        while ahead:
            done /= ahead.pop(0)
            source = self._in_root(done)
            if source.is_symlink():
                link = source.readlink()
                self._link(done, link)
                ahead = [*Path(os.path.normpath(done.parent / link)).parts[1:], *ahead]
                done = Path("/")
            elif source.is_dir():
                (self._target / done.relative_to("/")).mkdir(parents=True, exist_ok=True)
            elif source.exists():
                self._copy(done)
            else:
                return

    def add_tree(self, folder: Path, *, left_out: frozenset[str] = frozenset()) -> None:
        """Copy all files of the folder but those in folders of these names."""
        for path in sorted(self._in_root(folder).rglob("*")):
            inside = path.relative_to(self._in_root(folder))
            wanted = left_out.isdisjoint(inside.parts) and not _is_left_out(path)
            if wanted and (path.is_symlink() or path.is_file()):
                self.add(folder / inside)

    def write(self, path: str, text: str) -> None:
        """Write a file that is not in the base."""
        target = self._target / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="ascii")

    def _in_root(self, path: Path) -> Path:
        return self._root / path.relative_to("/")

    def _link(self, path: Path, link: Path) -> None:
        target = self._target / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(link)

    def _copy(self, path: Path) -> None:
        if path not in self.files:
            shutil.copy2(self._in_root(path), self._target / path.relative_to("/"))
            self.files.add(path)


def _is_left_out(path: Path) -> bool:
    return path.parent.name == "lib-dynload" and _EXTENSIONS_LEFT_OUT.match(path.name) is not None


def libraries_of(path: Path) -> Iterator[Path]:
    """The shared libraries that a program or library loads, with those that they load."""
    with path.open("rb") as file:
        if file.read(4) != _ELF:
            return
    said = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout  # noqa: S603, S607
    for line in said.splitlines():
        if (match := _LIBRARY.search(line)) is not None:
            yield Path(match[1])


def collect(target: Path) -> frozenset[Path]:
    """Copy everything into `target`. Returns the real paths of the files that were copied."""
    chosen = Collection(target)
    for command in sorted((ENVIRONMENT / "bin").iterdir()):
        if COMMANDS.fullmatch(command.name):
            chosen.add(command)
    chosen.add_tree(ENVIRONMENT, left_out=frozenset({"bin", "include"}))
    for name in ("stdlib", "platstdlib"):
        chosen.add_tree(Path(sysconfig.get_path(name)), left_out=LEFT_OUT)
    for file in sorted(chosen.files):
        for library in libraries_of(file):
            chosen.add(library)
    (library_folder,) = {each.parent for each in chosen.files if each.name.startswith("libc.so")}
    for name in _LOADED_LATER:
        chosen.add(library_folder / name)
    for path in CONFIGURATION:
        chosen.add(Path(path))
    for path, text in _ACCOUNTS.items():
        chosen.write(path, text)
    (target / "tmp").mkdir(exist_ok=True)
    (target / "tmp").chmod(0o1777)
    return frozenset(chosen.files)


if __name__ == "__main__":
    sys.stdout.writelines(f"{each}\n" for each in sorted(collect(Path(sys.argv[1]))))
