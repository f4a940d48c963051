"""The real programs that tests run: certbot, lego, Caddy and Apache, openssl and curl, Knot DNS.

`required` is for tests: what cannot be had on a person's machine skips a test and says why; in CI (CI=true) it fails,
because there nobody reads what was skipped.
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

_INSTALL_LIMIT = 300.0
MODULES = Path(__file__).parents[1] / "stories" / "binaries"
"""What pins the versions of those that are built."""


class Missing(Exception):
    """A program is not here and cannot be had; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, and where it comes from."""

    name: str
    debian: str = ""
    """Its package in Debian, for what `apt-get install` may get."""
    hint: str = ""
    """How a person gets it."""
    package: str = ""
    """The Go package that it is built from: then only the pinned version will do, whatever is installed."""


CERTBOT = Tool("certbot", hint="it belongs to the project's environment: make setup")
LEGO = Tool("lego", debian="lego", hint="apt-get install lego")
OPENSSL = Tool("openssl", debian="openssl", hint="apt-get install openssl")
CURL = Tool("curl", debian="curl", hint="apt-get install curl")
APACHE = Tool("apache2", debian="apache2-bin", hint="apt-get install apache2-bin")
"""The program and its modules, without the service that the package apache2 starts."""
KNOT = Tool("knotd", debian="knot", hint="apt-get install knot")
CADDY = Tool(
    "caddy",
    package="github.com/caddyserver/caddy/v2/cmd/caddy",
    hint="it is built from Go modules, which takes Go (or PyPI) and proxy.golang.org",
)
"""Debian's is too old for renewal information (RFC 9773)."""


def find(tool: Tool, env: Mapping[str, str] = os.environ) -> Path:
    """The program: built, if it is pinned; else beside this Python, on PATH, or installed from Debian if we are root.

    Raises:
        Missing: none of these.
        BuildFailed: its modules are here, and cannot be built.
    """
    if tool.package:
        return _built(tool, env)
    if found := _found(tool, env):
        return found
    if tool.debian and os.geteuid() == 0 and shutil.which("apt-get", path=env.get("PATH")):
        _apt(tool, env)
        if found := _found(tool, env):
            return found
    raise Missing(f"{tool.name} is missing: {tool.hint}")


def required(tool: Tool, env: Mapping[str, str] = os.environ) -> Path:
    """The program, for a test that cannot do without it: else the test is skipped, or fails in CI."""
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
    builder = Builder(cache, env, Progress(sys.stderr), MODULES, packages={tool.name: tool.package})
    try:
        return builder.ensure() / tool.name
    except NoSource as none:
        raise Missing(f"{tool.name} is missing: {tool.hint}\n{str(none).removesuffix(OTHER_WAYS).strip()}") from none


def _apt(tool: Tool, env: Mapping[str, str]) -> None:
    """Install a package; where that fails, once more with fresh lists of what there is."""
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
    """Build what is pinned, before tests ask for it, so that people see what takes so long."""
    try:
        find(CADDY)
    except Missing as missing:
        sys.stderr.write(f"{missing}\n")


if __name__ == "__main__":
    main()
