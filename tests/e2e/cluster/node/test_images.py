"""Images from the cache and into it, with stand-ins for the programs that build them."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from e2e.cluster.errors import BuildFailed
from e2e.cluster.node.images import ROOT, SOURCES, Images
from e2e.cluster.progress import Progress

UNSHARE = '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n'
BUILDAH = """#!/bin/sh
echo "$@" >>@FOLDER@/asked
@BUILD@
for word in "$@"; do
  case $word in oci-archive:*:*) rest=${word#oci-archive:}; echo image >"${rest%%:*}" ;; esac
done
"""


class Machine:
    """A cache, a program to make an image of, and programs on PATH that only write down what they were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.said = io.StringIO()
        self.program = folder / "0123456789abcdef" / "pause"
        self.program.parent.mkdir()
        self.program.write_text("program", encoding="ascii")
        (folder / "bin").mkdir()
        self.stand_in("unshare", UNSHARE)
        self.stand_in("debootstrap", '#!/bin/sh\nfor last in "$@"; do :; done\nmkdir -p $last/etc\n')
        self.buildah()

    def buildah(self, build: str = "") -> None:
        self.stand_in("buildah", BUILDAH.replace("@FOLDER@", str(self.folder)).replace("@BUILD@", build))

    def stand_in(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text, encoding="ascii")
        path.chmod(0o755)

    def images(self) -> Images:
        return Images(self.cache, Progress(self.said), {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin"})

    def builds(self) -> int:
        return (self.folder / "asked").read_text(encoding="utf-8").count(" build ")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what our image is made of."""
    for each in SOURCES:
        target = tmp_path / "tree" / each
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / each).is_dir():
            target.mkdir()
        else:
            shutil.copy(ROOT / each, target)
    return tmp_path / "tree"


def test_an_image_is_built_once_and_found_again(machine: Machine) -> None:
    first = machine.images().program(machine.program)
    assert first.archive.read_text() == "image\n"
    assert first.repository == "kms-acme.test/pause"
    assert machine.images().program(machine.program) == first
    assert machine.builds() == 1
    assert f"Building image {first.reference}: done in" in machine.said.getvalue()


def test_two_that_build_at_once_build_once(machine: Machine) -> None:
    machine.buildah("sleep 0.3")
    builders = [threading.Thread(target=machine.images().program, args=(machine.program,)) for _ in range(2)]
    for each in builders:
        each.start()
    for each in builders:
        each.join(20)
    assert machine.builds() == 1


def test_a_build_that_fails_says_why_and_its_storage_is_not_used_again(machine: Machine) -> None:
    machine.buildah(
        '[ "${4}" != build ] || { touch @/left; echo "no space left" >&2; exit 1; }'.replace(
            "@", str(machine.cache / "storage")
        )
    )
    with pytest.raises(BuildFailed, match=r"(?s)kms-acme.test/pause:\w+ could not be built:.*no space left"):
        machine.images().program(machine.program)
    assert (machine.cache / "storage" / "left").exists()
    machine.buildah()
    assert machine.images().program(machine.program).archive.exists()
    assert not (machine.cache / "storage" / "left").exists()


def test_our_image_is_another_when_a_file_of_it_changes_and_the_same_when_none_does(
    machine: Machine, tree: Path
) -> None:
    before = machine.images().kms_acme(tree)
    (tree / "README.md").touch()
    (tree / "kms" / "__pycache__").mkdir()
    (tree / "kms" / "__pycache__" / "new.pyc").touch()
    assert machine.images().kms_acme(tree) == before
    (tree / "kms" / "new.py").touch()
    assert machine.images().kms_acme(tree) != before


def test_earlier_states_of_the_tree_are_forgotten_the_longest_unused_first(machine: Machine, tree: Path) -> None:
    made = []
    for number in range(10):
        (tree / "README.md").write_text(str(number), encoding="ascii")
        made.append(machine.images().kms_acme(tree))
        os.utime(made[-1].archive, (time.time() - 100 + number,) * 2)
    assert [each.archive.exists() for each in made] == [False, False] + [True] * 8
