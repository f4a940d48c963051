"""Which tests share a worker of pytest-xdist, by what they disturb, and which begin first.

A control plane and an installation (operator and server) exist once for each group that needs them, never once for each
worker or file:

* "api server": tests that define kinds, ask who may do what, or stop the API server;
* "operators": tests that run operators of their own;
* "programs": tests that stop, kill, add or count the programs of an installation;
* "stories": clients of an installation that nobody disturbs.

Tests that start a cluster of their own are grouped by file, like those that need none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LONG = ("programs", "operators", "stories", "api server")
"""Groups that one worker is busy with for minutes: they begin first, so that no worker ends late."""
_OPERATORS = frozenset(
    f"tests/{name}.py"
    for name in (
        "chart/test_two_releases",
        "integration/test_operator",
        "integration/test_operator_processes",
        "integration/test_published_roots",
        "integration/test_ready_made_issuers",
    )
)
_CLUSTERS = frozenset({"clusters", "helm"})
_TOOLS = ("tests/e2e/", "tests/load/", "tests/fuzz/test_tools.py")


def arrange(items: list[pytest.Item]) -> None:
    """Name the group of each test, mark the tests of our test tools, and sort the groups: the longest come first."""
    for item in items:
        path = item.path.relative_to(ROOT).as_posix()
        if path.startswith(_TOOLS):
            item.add_marker(pytest.mark.tools)
        item.add_marker(pytest.mark.xdist_group(_group(path, getattr(item, "fixturenames", ()))))
    items.sort(key=_rank)


def _group(path: str, fixtures: tuple[str, ...]) -> str:
    if "node_cluster" in fixtures:
        return "node"
    if "installation" in fixtures:
        return "stories" if path.startswith("e2e/stories/") else "programs"
    if "cluster" in fixtures:
        return "operators" if path in _OPERATORS else "api server"
    return path


def _rank(item: pytest.Item) -> int:
    (group,) = next(item.iter_markers("xdist_group")).args
    if group in _LONG:
        return _LONG.index(group)
    starts_cluster = group == "e2e/stories/test_demo.py" or not _CLUSTERS.isdisjoint(getattr(item, "fixturenames", ()))
    return len(_LONG) + (not starts_cluster)
