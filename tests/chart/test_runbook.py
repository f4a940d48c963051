"""Whoever is woken by an alert finds its name in the documentation, with what it means and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from e2e.stories.snippets import ROOT, documents
from tests.chart.test_metrics import METRICS, RULES

RUNBOOK = (ROOT / "docs" / "troubleshooting.md").read_text().partition("\n## Alerts\n")[2]
ENTRIES: Mapping[str, str] = dict(re.findall(r"^### (\w+)\n\n(.*?)\n(?=\n#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def test_every_alert_has_an_entry_and_every_entry_an_alert_in_the_same_order() -> None:
    assert list(ENTRIES) == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_entry_says_how_bad_it_is_what_it_means_and_what_to_do(rule: Mapping[str, Any]) -> None:
    entry = " ".join(ENTRIES[rule["alert"]].split())
    assert entry.startswith(f"*{rule['labels']['severity']}, after {rule['for']}.* It means: ")
    meaning, _, advice = entry.partition(" What to do: ")
    assert len(meaning) > 60
    assert len(advice) > 60


def test_every_metric_that_the_documentation_names_is_exposed() -> None:
    exposed = set(METRICS) | {name.removesuffix(suffix) for name in METRICS for suffix in ("_count", "_sum", "_bucket")}
    for page in documents():
        named = set(re.findall(r"\bkms_(?:acme|operator)_[a-z_]+\b", page.read_text()))
        modules = {each for each in named if (ROOT / each).is_dir() or (ROOT / "operator" / each).is_dir()}
        assert named - modules <= exposed, page.name
