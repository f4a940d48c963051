from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from e2e.load.__main__ import main
from e2e.load.processes import cores, processor


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("Examples:", "Exit codes:", "--external-directory", "--compare", "floor"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--kid", "a"], "--kid and --hmac go together"),
        (["--pid", "server"], "NAME=PID"),
        (["--orders", "0"], "not in the range"),
        (["--names", "101"], "not in the range"),
        (["--servers", "1,many"], "N,N"),
        (["--servers", "1,10"], "from 0 to 9"),
        (["--ca", "/nowhere.pem"], "does not exist"),
        (["--compare", "boulder"], "'boulder' is not one of step-ca, pebble"),
        (["--compare", "pebble,pebble"], "names a server twice"),
        (["--compare", "pebble", "--external-directory", "https://localhost:1/dir"], "starts its servers itself"),
        (["--compare", "pebble", "--renewal"], "exclude each other"),
        (["--compare", "pebble", "--orders", "3"], "less than one for each of 4 rounds"),
        (["--compare", "pebble", "--rounds", "0"], "not in the range"),
        (["--external-directory", "https://localhost:1/dir", "--kid", "a", "--hmac", "!"], "base64url"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str], text: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.output


def test_a_server_that_cannot_be_reached_ends_with_exit_code_1() -> None:
    result = run("--external-directory", "https://localhost:1/dir", "--http01-port=45002", "--dns-port=45053")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")


def test_the_processor_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Test CPU\n")
    assert processor(proc=tmp_path) == "Test CPU"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n")
    assert processor(proc=tmp_path) == "an unknown processor"
    assert cores() >= 1
