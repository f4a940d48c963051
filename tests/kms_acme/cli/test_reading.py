"""What commands that read have in common: completion, colours, exit codes, the plugin of kubectl."""

from __future__ import annotations

import asyncio
import re
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from kms.resources.kinds import PROFILES
from kms_acme.cli import main
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.operated import profile

ROOT = Path(__file__).parents[3]


async def complete(api: FakeApiServer, folder: Path, *words: str) -> list[str]:
    """What a shell offers after these words."""
    environment = {
        "KUBECONFIG": str(api.write_kubeconfig(folder / "kubeconfig")),
        "_KMS_ACME_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("kms-acme", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = await asyncio.to_thread(CliRunner().invoke, main.main, [], env=environment, prog_name="kms-acme")
    return [line.partition(",")[2] for line in done.output.splitlines() if line]


@pytest.mark.requirement("P1")
async def test_a_shell_completes_commands_and_names_from_the_cluster(tmp_path: Path) -> None:
    async with running_api() as api:
        for name in ("web", "wild", "mail"):
            api.put(PROFILES, profile(name))
        assert await complete(api, tmp_path, "pol") == ["policy"]
        assert await complete(api, tmp_path, "policy", "test", "-p", "pki/w") == ["pki/web", "pki/wild"]
        assert await complete(api, tmp_path, "policy", "test", "-n", "p") == ["pki"]
        api.fail_next("list", "certificateprofiles", 403)
        assert await complete(api, tmp_path, "policy", "test", "-p", "pki/w") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell: str) -> None:
    done = CliRunner().invoke(main.main, ["completion", shell])
    assert done.exit_code == 0
    assert "_KMS_ACME_COMPLETE" in done.output


@pytest.mark.parametrize(
    ("line", "environment", "colored"), [([], {}, True), (["--no-color"], {}, False), ([], {"NO_COLOR": "1"}, False)]
)
def test_colours_can_be_turned_off(line: list[str], environment: dict[str, str], colored: bool) -> None:
    arguments = ["policy", "test", "-f", str(ROOT / "deploy/samples"), "-p", "pki/web", "a.apps.example.com", *line]
    done = CliRunner().invoke(main.main, arguments, env=environment, color=True)
    assert ("\x1b[" in done.output) is colored
    assert "\x1b[" not in CliRunner().invoke(main.main, arguments).output


@pytest.mark.parametrize(
    "line", [["-n", "pki", "-p", "web"], ["-p", "web", "-n", "pki"], ["-p", "pki/web", "-n", "other"]]
)
def test_a_name_without_a_namespace_is_in_that_of_the_option(line: list[str]) -> None:
    arguments = ["policy", "test", "-f", str(ROOT / "deploy/samples"), "a.apps.example.com", *line]
    done = CliRunner().invoke(main.main, arguments)
    assert (done.exit_code, "granted" in done.output) == (0, True), done.output


def test_a_name_without_any_namespace_is_refused() -> None:
    done = CliRunner().invoke(main.main, ["policy", "test", "-f", str(ROOT / "deploy/samples"), "a.com", "-p", "web"])
    assert done.exit_code == 2
    assert "or set --namespace" in done.output


def test_kubectl_finds_the_program_as_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-kms"] == "kms_acme.cli.main:kubectl_plugin"
    monkeypatch.setattr(sys, "argv", ["kubectl-kms", "version"])
    with pytest.raises(SystemExit) as ended:
        main.kubectl_plugin()
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["enr"], [r"enroll\tPrint .*", ":4"]),
        (["explain", "na"], [r"name\t.*", ":4"]),
        (["enroll", "--client", "cert"], ["certbot", "cert-manager", ":4"]),
        (["enroll", "--prof"], [r"--profile\t.*", ":4"]),
        (["check", "--url-file", ""], [":0"]),
        (["nonsense", ""], [".*", ":4"]),
    ],
)
def test_kubectl_completes_the_lines_of_its_plugin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], lines: list[str]
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl_complete-kms"] == "kms_acme.cli.main:kubectl_completion"
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-kms", *words])
    main.kubectl_completion()
    assert re.fullmatch("\n".join(lines) + "\n", capsys.readouterr().out, re.DOTALL)


async def test_without_a_cluster_or_permission_the_exit_code_is_1(tmp_path: Path) -> None:
    line = ["policy", "test", "-p", "pki/web", "a.apps.example.com", "--kubeconfig"]
    done = await asyncio.to_thread(CliRunner().invoke, main.main, [*line, str(tmp_path / "none")])
    assert done.exit_code == 1
    async with running_api() as api:
        kubeconfig = str(api.write_kubeconfig(tmp_path / "kubeconfig"))
        api.fail_next("list", "certificateprofiles", 403)
        done = await asyncio.to_thread(CliRunner().invoke, main.main, [*line, kubeconfig])
        assert (done.exit_code, done.output.partition(" of ")[0]) == (1, "Error: injected fault")
        done = await asyncio.to_thread(CliRunner().invoke, main.main, [*line, kubeconfig])
        assert (done.exit_code, "there is no CertificateProfile pki/web" in done.output) == (1, True), done.output
