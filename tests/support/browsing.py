"""Pages in Chromium, looked over by axe-core."""

from __future__ import annotations

import json
import os

import pytest

from e2e.support.axe import axe
from e2e.support.chromium import Tab
from e2e.support.tools import Missing


def axe_or_skip() -> str:
    """The script of axe-core. Without it, tests are skipped on a person's machine and fail elsewhere (CI)."""
    try:
        return axe()
    except Missing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


async def axe_violations(tab: Tab, script: str) -> list[str]:
    """What keeps people from using the page that is open."""
    await tab.evaluate(script + "; 0")
    found = await tab.evaluate("axe.run().then((each) => JSON.stringify(each.violations))")
    return [
        f"{each['id']} ({each['impact']}): {each['nodes'][0]['html'][:200]} {each['nodes'][0].get('failureSummary')}"
        for each in json.loads(found)
    ]


async def require_clean(tab: Tab, origin: str, path: str) -> None:
    """No violation of the Content-Security-Policy, no error, and no request to anywhere else."""
    assert await tab.evaluate("window.violations") == [], path
    assert tab.problems == [], path
    elsewhere = [each for each in tab.requests if not each.startswith((f"http://{origin}/", "about:"))]
    assert elsewhere == [], path
