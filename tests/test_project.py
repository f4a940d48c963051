"""What the project promises at its root: dependencies explained and pinned, and the command line that was agreed on."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from kms_acme.cli.main import main

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; (?P<marker>.*?))? \\\n(?P<hashes>(?:    --hash=\S+.*\n)*)",
    re.MULTILINE,
)

INDEXED = (
    "acme_server/accounts",
    "acme_server/certificates",
    "acme_server/orders",
    "acme_server/state",
    "acme_server/validation",
    "kms/cluster",
    "kms_acme/console",
    "operator/kms_operator/reconcilers",
)
"""Packages whose docstring says what each of their modules is for."""
SERVER, OPERATOR = frozenset({"server"}), frozenset({"operator"})
BOTH = SERVER | OPERATOR
OPTIONS = {
    "--kubeconfig": BOTH,
    "--context": BOTH,
    "--namespace": BOTH,
    "--watch-namespace": BOTH,
    "--external-url": BOTH,
    "--listen": SERVER,
    "--http-listen": SERVER,
    "--http-url": BOTH,
    "--tls-certificate": SERVER,
    "--tls-private-key": SERVER,
    "--metrics-listen": BOTH,
    "--dns-server": SERVER,
    "--http01-port": SERVER,
    "--tls-alpn01-port": SERVER,
    "--validation-allow": SERVER,
    "--validation-deny": SERVER,
    "--log-format": BOTH,
    "--log-level": BOTH,
}
"""What scripts are written against. Options may be added; one that goes or is renamed breaks somebody."""


def declared(*groups: str) -> list[Requirement]:
    """What pyproject.toml asks for, and what these groups of it do."""
    own = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    return own + [each for name in groups for each in of_group(name)]


def of_extras() -> list[Requirement]:
    """What the extras of pyproject.toml ask for: tests have them, the image has not."""
    extras = PROJECT["project"]["optional-dependencies"]
    return [Requirement(text) for texts in extras.values() for text in texts]


def of_group(name: str) -> list[Requirement]:
    """What that group of pyproject.toml asks for."""
    return [Requirement(text) for text in PROJECT["dependency-groups"][name]]


_DEVELOPMENT = [*declared("dev", "certbot", "openbao"), *of_extras()]
LOCKS = [
    pytest.param("requirements.lock", declared(), id="requirements.lock"),
    pytest.param("requirements-dev.lock", _DEVELOPMENT, id="requirements-dev.lock"),
    pytest.param("requirements-fuzz.lock", of_group("fuzz"), id="requirements-fuzz.lock"),
]


def pins(lock: str) -> dict[str, re.Match[str]]:
    """The entries of a lock file by normalised name."""
    return {canonicalize_name(found["name"]): found for found in _PIN.finditer((ROOT / lock).read_text())}


def needed(requirements: list[Requirement]) -> set[str]:
    """The names of all that is installed for them here, directly or not."""
    found: set[str] = set()
    asked: set[tuple[str, str]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in asked:
                asked.add((name, extra))
                waiting.extend(_below(name, extra))
    return found


def _below(name: str, extra: str) -> Iterator[Requirement]:
    try:
        texts = requires(name) or ()
    except PackageNotFoundError:
        return  # for another platform than this
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def test_the_architecture_has_a_line_for_each_dependency_and_none_for_others() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text().partition("## Dependencies")[2]
    rows = re.findall(r"^\| (\S+) \| \S.* \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert [row for row in rows if row not in {"dependency", "---"}] == [
        each.name for each in (*declared(), *of_extras())
    ]


@pytest.mark.requirement("SEC68")
@pytest.mark.parametrize(("lock", "requirements"), LOCKS)
def test_a_lock_file_pins_every_dependency_within_its_range(lock: str, requirements: list[Requirement]) -> None:
    pinned = pins(lock)
    for requirement in requirements:
        version = Version(pinned[canonicalize_name(requirement.name)]["version"])
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is pinned to {version}"


@pytest.mark.requirement("SEC68")
@pytest.mark.parametrize(("lock", "requirements"), LOCKS)
def test_a_lock_file_has_nothing_without_a_hash_and_nothing_that_nobody_needs(
    lock: str, requirements: list[Requirement]
) -> None:
    pinned = pins(lock)
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith((" ", "#"))]
    assert len(lines) == len(pinned)
    assert [name for name, pin in pinned.items() if "--hash=sha256:" not in pin["hashes"]] == []
    here = {name for name, pin in pinned.items() if pin["marker"] is None}
    assert here - needed(requirements) == set()


@pytest.mark.requirement("SEC68")
@pytest.mark.parametrize(
    ("name", "mended"), [("aiohttp", "3.13.4"), ("cryptography", "46.0.6"), ("dnspython", "2.6.1")]
)
def test_what_had_holes_is_pinned_where_they_are_mended(name: str, mended: str) -> None:
    """CVE-2026-34516 and others; CVE-2026-34073; CVE-2023-50387."""
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert Version(pins(lock)[name]["version"]) >= Version(mended)


def test_both_lock_files_pin_the_same_versions() -> None:
    run, test = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: pin["version"] for name, pin in run.items()} == {name: test[name]["version"] for name in run}


@pytest.mark.parametrize("package", INDEXED)
def test_the_docstring_of_a_package_lists_its_modules(package: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
    names = (line.partition("   ")[0].split(", ") for line in docstring.splitlines()[2:])
    inside = {
        each.stem for each in (ROOT / package).iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()
    }
    assert sorted(name for line in names for name in line) == sorted(inside - {"__init__"})


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_scripts_rely_on_is_there_also_as_an_environment_variable(option: str) -> None:
    for name in (*OPTIONS[option], "dev"):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        (found,) = (each for each in command.params if option in each.opts)
        assert isinstance(found, click.Option)
        assert found.envvar == "KMS_ACME_" + option.removeprefix("--").replace("-", "_").upper()
        assert found.help, f"{option} of {name} has no help"
