"""The commands of docs/command-line.md print what the page shows."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from kms_acme.cli import main
from tests.support.apiserver import running_api
from tests.support.shown_cluster import fill

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "command-line.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [each for block in BLOCKS for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
_YAML = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CASES, WORKFLOW = (next(each for each in _YAML if word in each) for word in ("\ncases:", "\njobs:"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the file of cases."""
    for name in ("crds", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "policy-cases.yaml").write_text(CASES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome(shown: str, kubeconfig: Path) -> tuple[str, str]:
    """What the page shows, and what the command prints."""
    line, _, expected = shown.partition("\n")
    program, *arguments = shlex.split(line)
    assert program == "kms-acme"
    result = CliRunner().invoke(main.main, arguments, env={"KUBECONFIG": str(kubeconfig)})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return expected, result.output


@pytest.mark.parametrize("shown", COMMANDS, ids=lambda shown: shown.partition("\n")[0])
async def test_a_command_prints_what_the_page_shows(shown: str, here: Path) -> None:
    async with running_api() as api:
        fill(api)
        expected, printed = await asyncio.to_thread(outcome, shown, api.write_kubeconfig(here / "kubeconfig"))
    # A gap stands for what is long or changes.
    pattern = ".*".join(map(re.escape, expected.split("…")))
    assert re.fullmatch(pattern, printed, re.DOTALL), printed


def test_the_workflow_runs_a_command_of_the_page() -> None:
    steps = yaml.safe_load(WORKFLOW)["jobs"]["policies"]["steps"]
    runs = [each["run"] for each in steps if "run" in each]
    assert runs[0] == "pip install kms-acme"
    assert runs[1:] == [each.partition("\n")[0] for each in COMMANDS if "--cases" in each]


def test_each_command_has_two_examples_in_its_help() -> None:
    groups: list[tuple[tuple[str, ...], click.Group]] = [(("kms-acme",), main.main)]
    examples = {}
    while groups:
        path, group = groups.pop()
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                groups.append(((*path, name), command))
            elif command is not None:
                examples[(*path, name)] = (command.help or "").partition("Examples:")[2].count("kms-acme ")
    without = {" ".join(path) for path, number in examples.items() if number < 2}
    assert without == {f"kms-acme {each}" for each in ("dev", "operator", "server", "version")}
