"""Finding the real clients, with stand-ins for them and for apt-get."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2e.support.tools import CADDY, CERTBOT, Missing, Tool, find, required

NEW = Tool("kms-acme-no-such-tool", debian="kms-acme-no-such-package", hint="make one")


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    path.chmod(0o755)
    return path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH leads to an empty folder first."""
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_certbot_is_found_in_the_projects_environment() -> None:
    assert find(CERTBOT, {"PATH": ""}).name == "certbot"


def test_a_tool_is_found_on_path(env: dict[str, str], tmp_path: Path) -> None:
    tool = script(tmp_path, NEW.name, "true")
    assert find(NEW, env) == tool


def test_a_missing_tool_is_installed_by_root_with_fresh_lists_if_need_be(
    env: dict[str, str], tmp_path: Path, as_root: None
) -> None:
    said = tmp_path / "said"
    script(
        tmp_path,
        "apt-get",
        f'echo "$@" >>{said}\n'
        f'case "$*" in *install*) [ $(grep -c update {said}) = 1 ] || exit 100; '
        f"echo >{tmp_path}/{NEW.name}; chmod +x {tmp_path}/{NEW.name};; esac",
    )
    assert find(NEW, env) == tmp_path / NEW.name
    assert [line.split()[3] for line in said.read_text().splitlines()] == ["install", "update", "install"]


def test_what_apt_says_is_in_the_error(env: dict[str, str], tmp_path: Path, as_root: None) -> None:
    script(tmp_path, "apt-get", "echo E: Unable to locate package >&2; exit 100")
    with pytest.raises(Missing, match=r"could not install it: E: Unable to locate package"):
        find(NEW, env)


def test_nobody_but_root_installs_anything(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    script(tmp_path, "apt-get", f"touch {tmp_path}/called")
    with pytest.raises(Missing, match=f"{NEW.name} is missing: make one"):
        find(NEW, env)
    assert not (tmp_path / "called").exists()


def test_without_its_tool_a_test_is_skipped_on_a_persons_machine_and_fails_in_ci(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="make one"):
        required(NEW, env)
    with pytest.raises(pytest.fail.Exception, match="make one"):
        required(NEW, {**env, "CI": "true"})


def test_a_pinned_tool_is_built_whatever_is_on_path(env: dict[str, str], tmp_path: Path) -> None:
    script(tmp_path, "caddy", "echo of the system")
    go = 'case $1 in version) echo "go version go1.99.0 linux/amd64";; *) [ -z "$target" ] || touch "$target";; esac'
    words = 'for word in "$@"; do [ "$last" = -o ] && target=$word; last=$word; done'
    script(tmp_path, "go", f"{words}\n{go}")
    found = find(CADDY, {**env, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert found.is_relative_to(tmp_path / "cache")
    assert found.name == "caddy"


def test_a_pinned_tool_whose_modules_cannot_be_had_is_missing(env: dict[str, str], tmp_path: Path) -> None:
    go = 'case $1 in version) echo "go version go1.99.0 linux/amd64";; *) echo "dial tcp: no such host"; exit 1;; esac'
    script(tmp_path, "go", go)
    with pytest.raises(Missing, match=r"(?s)caddy is missing: .*no such host$"):
        find(CADDY, {**env, "XDG_CACHE_HOME": str(tmp_path / "cache")})
