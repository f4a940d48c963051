"""`make image`, with stand-ins for the programs that build images, and the lock file of what builds the wheel."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from e2e.cluster.node.images import SOURCES

ROOT = Path(__file__).parents[2]
ENGINE = '#!/bin/sh\necho "$0 $@"\necho "epoch $SOURCE_DATE_EPOCH"\n'


def built(folder: Path, *engines: str, options: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script where only these engines are on PATH."""
    for each in (*engines, "sed", "git", "dirname"):
        path = folder / each
        if each in engines:
            path.write_text(ENGINE, encoding="ascii")
            path.chmod(0o755)
        else:
            path.symlink_to(Path("/usr/bin") / each)
    return subprocess.run(
        ["/bin/sh", str(ROOT / "deploy" / "build-image.sh"), *options],
        env={"PATH": str(folder), "SOURCE_DATE_EPOCH": "1234567890", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("there", "taken"),
    [(("docker",), "docker"), (("docker", "podman"), "podman"), (("docker", "podman", "buildah"), "buildah")],
)
def test_the_image_is_built_with_the_first_engine_that_is_there(
    tmp_path: Path, there: tuple[str, ...], taken: str
) -> None:
    done = built(tmp_path, *there)
    assert done.returncode == 0, done.stderr
    command, epoch, said = done.stdout.splitlines()
    assert command.startswith(f"{tmp_path / taken} build --file deploy/Containerfile --tag kms-acme:")
    assert command.endswith(" .")
    assert epoch == "epoch 1234567890"
    assert said.endswith(f" with {taken}.")


@pytest.mark.parametrize(
    ("engine", "option"),
    [("buildah", "--layers --timestamp 1234567890"), ("docker", "--output type=docker,rewrite-timestamp=true")],
)
def test_time_stamps_are_fixed(tmp_path: Path, engine: str, option: str) -> None:
    assert f" {option} " in built(tmp_path, engine).stdout


def test_time_stamps_change_with_the_lower_layers_only(tmp_path: Path) -> None:
    lower = ("requirements.lock", "deploy/requirements-build.lock", "deploy/Containerfile", "deploy/image")
    assert all((ROOT / each).exists() for each in lower)
    wanted = ["git", "log", "-1", "--format=%ct", "--", *lower]
    known = subprocess.run(wanted, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert f" --timestamp {known or 0} " in built(tmp_path, "buildah", SOURCE_DATE_EPOCH="").stdout


def test_name_and_base_are_chosen_by_the_caller(tmp_path: Path) -> None:
    options = ("--build-arg", "BASE=registry.example.com/python:3.13")
    said = built(tmp_path, "podman", options=options, IMAGE="registry.example.com/kms-acme:9").stdout
    assert "--tag registry.example.com/kms-acme:9 " in said
    assert "--build-arg BASE=registry.example.com/python:3.13 ." in said


def test_without_an_engine_a_person_is_told_what_is_missing(tmp_path: Path) -> None:
    done = built(tmp_path)
    assert done.returncode == 1
    assert "Install buildah, podman or docker" in done.stderr


def test_what_builds_the_wheel_is_locked_to_the_versions_of_the_development_lock() -> None:
    pinned = requirements(ROOT / "deploy" / "requirements-build.lock")
    assert any(each.startswith("hatchling==") for each in pinned)
    assert pinned <= requirements(ROOT / "requirements-dev.lock")


def test_the_image_is_built_from_what_the_test_of_its_cache_looks_at() -> None:
    """An image is found again by a digest of all files that .containerignore lets through."""

    let_through = {
        line.removeprefix("!") for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")
    }
    assert let_through == set(SOURCES) - {"deploy/Containerfile", ".containerignore"}


def requirements(path: Path) -> set[str]:
    """Names with their versions, as in "hatchling==1.33.0", and their hashes."""
    return {
        line.strip(" \\") for line in path.read_text(encoding="utf-8").splitlines() if not line.strip().startswith("#")
    }


@pytest.mark.requirement("SEC68")
def test_the_base_is_pinned_by_digest() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "deploy" / "Containerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
