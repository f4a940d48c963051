"""Where a message names an option of a program, it names the value of the chart, and both exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from e2e.chart.helm import CHART, ROOT, Helm
from e2e.chart.values import parse
from e2e.stories.snippets import CERT_MANAGER, HELM, snippets
from kms.resources.profiles import CertificateProfile
from kms_acme.cli.main import main as command_line
from kms_acme.cli.operator_options import operator_settings
from kms_operator.reconcilers.placement import NOT_ALLOWED
from tests.kms_operator.reconcilers.test_certmanager_issuers import CONDITION, reconciled
from tests.support.charts import container
from tests.support.operated import namespace, stated

CONDITIONS = [*(ROOT / "operator" / "kms_operator").rglob("*.py")]
"""The sources of conditions."""
NAMED = re.compile(r"(--[a-z][a-z-]+).{0,40}?[ (]in the chart ([A-Za-z.]+)")
OPTIONS = {name for command in command_line.commands.values() for each in command.params for name in each.opts}
CONTAINERS = (CHART / "templates" / "_containers.tpl").read_text()


def messages(file: Path) -> Iterator[str]:
    """The texts of a source file, without documentation; {} stands for values."""
    tree = ast.parse(file.read_text())
    parts = {id(each) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for each in node.values}
    parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in parts:
                yield text
            case ast.JoinedStr(values=values):
                yield "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in values)


def told() -> list[tuple[str, str]]:
    """The messages of conditions that name an option which a value of the chart sets."""
    return [
        (option, text)
        for file in CONDITIONS
        for text in messages(file)
        for option in re.findall(r"--[a-z][a-z-]+", text)
        if option in OPTIONS and f"- {option}={{{{" in CONTAINERS
    ]


def test_there_are_such_messages() -> None:
    assert {"--cluster-issuers-from", "--trust-from", "--watch-namespace"} <= {option for option, _ in told()}


@pytest.mark.parametrize(("option", "text"), told())
def test_a_condition_that_names_an_option_names_the_value_of_the_chart(option: str, text: str) -> None:
    values = {leaf.name for each in parse((CHART / "values.yaml").read_text()) for leaf in each.leaves()}
    named = {match[1]: match[2].rstrip(".") for match in NAMED.finditer(text)}
    assert named.get(option) in values, text


def test_the_first_command_of_the_page_about_cert_manager_is_all_that_its_profile_needs(
    helm: Helm, tmp_path: Path
) -> None:
    command = next(block.text for block in snippets(CERT_MANAGER))
    assert command.startswith(HELM)
    (profile,) = yaml.safe_load_all(next(snippets(CERT_MANAGER, "yaml")).text)
    wanted = msgspec.convert({**profile, "metadata": {**profile["metadata"], "uid": "u"}}, CertificateProfile)

    def condition(*options: str) -> str:
        image = "--set=image.repository=kms-acme"
        printed = helm.run("template", "kms-acme", CHART, "--namespace=kms-acme", image, *options)
        args = container((each for each in yaml.safe_load_all(printed) if each), "operator")["args"][1:]
        kept = [f"--server-token-directory={tmp_path}" if "token-directory" in each else each for each in args]
        context = command_line.commands["operator"].make_context("operator", kept)
        plan = reconciled(wanted, namespace("cert-manager"), settings=operator_settings(context.params))
        return stated(plan, CONDITION).reason

    words = shlex.split(command.replace("\\\n", " "))
    assert condition() == NOT_ALLOWED, "the command is not needed"
    assert condition("--set", words[words.index("--set") + 1]) == "WaitingForCredential"
