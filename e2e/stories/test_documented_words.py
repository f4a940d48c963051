"""The documentation quotes messages of the programs, and its links and names exist."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import yaml

from e2e.stories.snippets import CERT_MANAGER, FIRST_CERTIFICATE, ROOT, Snippet, documents, snippets
from kms_acme.cli.main import main as command_line

TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
COMMAND_LINE = ROOT / "docs" / "command-line.md"
"""Its YAML is for other programs than kubectl."""
TABLES = ((TROUBLESHOOTING, 0), (FIRST_CERTIFICATE, 0), (CERT_MANAGER, 1))
"""Pages with tables of messages, and the column of the message."""
SOURCES = ("acme_server", "kms", "kms_acme", "operator")
PROVOKED = ROOT / "tests" / "acme_server" / "test_conformance_errors.py"
"""Contains messages in full that the sources compose."""
OF_OTHERS = (
    "certificate verify failed",
    "x509: certificate signed by unknown authority",
    'order is in "invalid" state',
    *("exceeded quota", "denied request", "is forbidden:", "field not declared in schema", "failed calling webhook"),
)
"""Words of clients and of the API server."""
GAP = "…"
_LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
_OPTION = re.compile(r"--[a-z][a-z0-9-]+")


def _texts(file: Path) -> Iterator[str]:
    """Every text in a source file, with a gap where a value is put in."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=values):
                yield "".join(each.value if isinstance(each, ast.Constant) else GAP for each in values)  # type: ignore[misc]


@cache
def _said() -> str:
    files = (PROVOKED, *(file for folder in SOURCES for file in (ROOT / folder).rglob("*.py")))
    crds = "\n".join(each.read_text() for each in (ROOT / "crds").glob("*.yaml"))
    return "\n".join((*(text for file in files for text in _texts(file)), crds))


def quotations() -> list[str]:
    """The messages in the tables about troubleshooting."""
    found: list[str] = []
    for page, column in TABLES:
        section = (
            page.read_text() if page == TROUBLESHOOTING else page.read_text().partition("\n## Troubleshooting\n")[2]
        )
        cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
        found += [
            quoted
            for row in cells
            for quoted in re.findall(r"`([^`]+)`", row[column])
            if not any(words in quoted for words in OF_OTHERS)
        ]
    return found


def log_events() -> list[str]:
    """The log events that the runbook of an alert names."""
    text = " ".join(TROUBLESHOOTING.read_text().split())
    named = re.findall(r"log events? `([^`]+)`(?: and `([^`]+)`)?", text)
    return [event for pair in named for event in pair if event]


def test_each_lego_command_passes_the_credential() -> None:
    """lego asks for it whatever it does, if the profile requires one."""
    texts = [snippet.text.replace("\\\n", " ") for file in documents() for snippet in snippets(file)]
    shown = [line for text in texts for line in text.splitlines() if line.startswith("lego ")]
    assert len(shown) >= 3
    assert [line for line in shown if not {"--eab", "--kid", "--hmac"} <= set(line.split())] == []


def test_there_are_symptoms() -> None:
    assert len(quotations()) > 50


@pytest.mark.parametrize("quotation", quotations())
def test_a_quoted_message_is_one_that_the_programs_have(quotation: str) -> None:
    pieces = [piece.strip(" .:;()\"'") for piece in quotation.split(GAP)]
    pieces = [piece for piece in pieces if piece]
    assert pieces, quotation
    pattern = "[^\n]*".join(map(re.escape, pieces))
    assert re.search(pattern, _said()), quotation


def test_there_are_log_events() -> None:
    assert len(log_events()) > 5


@pytest.mark.parametrize("event", log_events())
def test_a_log_event_in_a_runbook_is_one_that_the_programs_write(event: str) -> None:
    assert event in _said().splitlines()


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", documents(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.finditer(page.read_text()):
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        assert target.exists(), f"{page.name}: {link[0]}"
        if link["anchor"]:
            assert link["anchor"] in _anchors(target), f"{page.name}: {link[0]}"


def _subcommands(command: click.Command) -> dict[str, click.Command]:
    """The commands of a group, also those that it loads when they are needed."""
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: each for name, each in found.items() if each is not None}


def _options_of_ours() -> set[str]:
    commands = list(_subcommands(command_line).values())
    commands += [each for group in commands for each in _subcommands(group).values()]
    return {option for command in commands for each in command.params for option in each.opts}


def _command(words: list[str]) -> click.Command:
    """The command that a line begins with; commands may be in groups."""
    command: click.Command = command_line
    for word in words:
        if not isinstance(command, click.Group):
            break
        command = _subcommands(command)[word]
    return command


OURS = [each for file in documents() for each in snippets(file) if "kms-acme " in each.text]


@pytest.mark.parametrize("snippet", OURS, ids=str)
def test_options_of_our_command_in_snippets_exist(snippet: Snippet) -> None:
    for line in snippet.text.replace("\\\n", " ").splitlines():
        if line.startswith("kms-acme "):
            command = _command(line.split()[1:])
            known = {option for each in command.params for option in each.opts}
            assert set(_OPTION.findall(line)) <= known, line


def test_options_that_the_tables_name_exist() -> None:
    told = (ROOT / "docs" / "install.md", ROOT / "docs" / "security.md", TROUBLESHOOTING)
    others = {"--ip-address", "--agree-tos", "--accept-tos", "--namespace", "--create-namespace", "--recursive"}
    for page in told:
        quoted = {word for code in re.findall(r"`(--[^`]+)`", page.read_text()) for word in _OPTION.findall(code)}
        assert quoted - others <= _options_of_ours(), page.name


MANIFESTS = [each for file in documents() if file != COMMAND_LINE for each in snippets(file, "yaml")]


@pytest.mark.parametrize("snippet", MANIFESTS, ids=str)
def test_manifests_are_whole(snippet: Snippet) -> None:
    for each in yaml.safe_load_all(snippet.text):
        assert set(each) == {"apiVersion", "kind", "metadata", "spec"}, snippet
        assert {"name", "namespace"} >= set(each["metadata"]), snippet


SHELL = [each for file in documents() for each in snippets(file)]
_WITH_KEYS = re.compile(r"^kubectl (?:apply|diff|create|replace)\b.*\bkeys\.yaml\b.*$", re.MULTILINE)


def test_there_are_commands_that_restore_keys() -> None:
    assert len([line for each in SHELL for line in _WITH_KEYS.findall(each.text)]) > 1


@pytest.mark.requirement("SEC64")
@pytest.mark.parametrize("snippet", [each for each in SHELL if _WITH_KEYS.search(each.text)], ids=str)
def test_no_command_copies_a_private_key_into_an_annotation(snippet: Snippet) -> None:
    for line in _WITH_KEYS.findall(snippet.text):
        assert "--server-side" in line, "kubectl would write the annotation last-applied-configuration"
        assert "--save-config" not in line


@pytest.mark.requirement("SEC64")
@pytest.mark.parametrize("snippet", MANIFESTS, ids=str)
def test_no_manifest_is_one_of_a_secret(snippet: Snippet) -> None:
    kinds = {each["kind"] for each in yaml.safe_load_all(snippet.text)}
    assert "Secret" not in kinds, "kubectl apply would write the annotation last-applied-configuration"


def test_a_backup_has_no_annotation_of_an_earlier_restore() -> None:
    (backup,) = (each.text for each in SHELL if ">keys.yaml" in each.text)
    (program,) = re.findall(r"^FORGET='(.*)'$", backup, re.MULTILINE)
    listed = """\
items:
- data:
    tls.key: c2VjcmV0
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"data":{"tls.key":"c2VjcmV0"}}
      pki.kms.hanzo.ai/owner: CertificateAuthority pki/issuing
    name: ca-x
    uid: x
"""
    done = subprocess.run(["sed", program], input=listed, capture_output=True, text=True, check=True)
    assert yaml.safe_load(done.stdout)["items"][0]["metadata"] == {
        "annotations": {"pki.kms.hanzo.ai/owner": "CertificateAuthority pki/issuing"},
        "name": "ca-x",
    }
