"""What gets into the image of a base, on a small base in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.image.collect_files import COMMANDS, LEFT_OUT, Collection, libraries_of

pytestmark = pytest.mark.requirement("SEC68")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base whose /lib is a link, with an interpreter behind two links, and a shell."""
    root = tmp_path / "base"
    for path in ("usr/bin/python3.11", "usr/bin/dash", "usr/lib/libz.so.1.2", "opt/kms-acme/lib/python3.11/a.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    (root / "usr/bin/python3.11").chmod(0o755)
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/bin/python3").symlink_to("python3.11")
    (root / "usr/lib/libz.so.1").symlink_to("libz.so.1.2")
    (root / "opt/kms-acme/bin").mkdir()
    (root / "opt/kms-acme/bin/python3").symlink_to("/usr/bin/python3")
    return root


def files(folder: Path) -> dict[str, str]:
    """All files and links of the folder, with what they hold or lead to."""
    found = (each for each in sorted(folder.rglob("*")) if each.is_symlink() or each.is_file())
    return {
        str(each.relative_to(folder)): str(each.readlink()) if each.is_symlink() else each.read_text() for each in found
    }


def test_a_file_comes_with_the_links_that_lead_to_it_and_with_nothing_beside_it(base: Path, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "image", root=base)
    collection.add(Path("/opt/kms-acme/bin/python3"))
    collection.add(Path("/lib/libz.so.1"))
    collection.add(Path("/lib/libz.so.1"))
    assert files(tmp_path / "image") == {
        "lib": "usr/lib",
        "opt/kms-acme/bin/python3": "/usr/bin/python3",
        "usr/bin/python3": "python3.11",
        "usr/bin/python3.11": "usr/bin/python3.11",
        "usr/lib/libz.so.1": "libz.so.1.2",
        "usr/lib/libz.so.1.2": "usr/lib/libz.so.1.2",
    }
    assert collection.files == {Path("/usr/bin/python3.11"), Path("/usr/lib/libz.so.1.2")}
    assert (tmp_path / "image/usr/bin/python3.11").stat().st_mode & 0o777 == 0o755


def test_a_link_that_leads_nowhere_is_no_error(base: Path, tmp_path: Path) -> None:
    (base / "dangling").symlink_to("nowhere")
    collection = Collection(tmp_path / "image", root=base)
    collection.add(Path("/dangling"))
    collection.add(Path("/not/there"))
    assert collection.files == set()


def test_a_tree_comes_without_what_no_program_imports(base: Path, tmp_path: Path) -> None:
    library = base / "usr/lib/python3.11"
    for name in ("os.py", "test/test_os.py", "ensurepip/wheel.whl", "lib-dynload/_ssl.so", "lib-dynload/readline.so"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(name)
    collection = Collection(tmp_path / "image", root=base)
    collection.add_tree(Path("/usr/lib/python3.11"), left_out=LEFT_OUT)
    assert {each.name for each in collection.files} == {"os.py", "_ssl.so"}


@pytest.mark.parametrize(
    ("command", "chosen"),
    [("kms-acme", True), ("python3.13", True), ("kopf", False), ("activate", False), ("activate.fish", False)],
)
def test_of_the_commands_only_ours_and_the_interpreter_are_chosen(command: str, chosen: bool) -> None:
    assert (COMMANDS.fullmatch(command) is not None) is chosen


@pytest.mark.skipif(sys.platform != "linux", reason="the image is built on Linux")
def test_the_libraries_of_a_program_are_found_and_text_has_none(tmp_path: Path) -> None:
    found = {each.name for each in libraries_of(Path(sys.executable).resolve())}
    assert any(each.startswith("libc.so") for each in found)
    assert any(each.startswith("ld-linux") for each in found)
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert list(libraries_of(tmp_path / "text")) == []
