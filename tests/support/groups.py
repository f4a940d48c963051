"""Assigns tests to groups, which share a worker of pytest-xdist, and sorts the groups.

Each group has at most one control plane and one installation (operator and server):

* "programs", "servers": tests that stop, kill, add or count the programs of an installation, in two halves;
* "operators": tests that run their own operators;
* "stories": clients of an undisturbed installation;
* "demo": the demo and the pages of the documentation, each with a cluster of its own;
* "api server": tests that create CRDs, check permissions, or stop the API server.

All other tests are grouped by file, those with their own cluster before those without.

The groups of xdist (`--dist=loadgroup`) are not used: xdist 3.8 passes them on in a way that pytest 9.2 removed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]
_GROUPS = {
    "programs": frozenset(
        f"tests/integration/test_{name}.py"
        for name in (
            *("admission_policies", "apiserver_away", "backup", "busy_apiserver", "crashes", "deletion", "directories"),
            *("reloading", "revocation", "secrets_stay_secret", "stored_bytes"),
        )
    ),
    "servers": frozenset(
        f"tests/integration/test_{name}.py"
        for name in (
            "account_keys",
            "inventory",
            "notifications",
            "openbao",
            "replicas",
            "two_servers",
            "write_budget",
        )
    ),
    "operators": frozenset(
        {"tests/chart/test_two_releases.py"}
        | {
            f"tests/integration/test_{name}.py"
            for name in (
                *("external_authorities", "operator", "operator_processes", "pkcs11_keys", "published_roots"),
                "ready_made_issuers",
                "refused_writes",
            )
        }
    ),
    "stories": frozenset(
        f"e2e/stories/test_{name}.py"
        for name in (
            *("acme_library", "acme_library_beyond", "apache", "caddy", "certbot", "certbot_challenges"),
            *(
                "certbot_revocation",
                "enroll",
                "java",
                "key_stores",
                "kubectl",
                "late_authority",
                "lego",
                "lego_challenges",
                "old_certbot",
            ),
            *("openssl_requests", "quirks", "quirks_issuance", "renewal", "ruby", "step"),
        )
    ),
    "demo": frozenset(f"e2e/stories/test_{name}.py" for name in ("demo", "documentation")),
    "api server": frozenset(
        {
            "tests/chart/test_made_files.py",
            "tests/e2e/cluster/test_control_plane.py",
            "tests/e2e/cluster/test_fixtures.py",
        }
        | {
            f"tests/integration/test_{name}.py"
            for name in (
                *("admitted", "cluster_client", "console_rights", "crd_lifecycle", "crds", "rbac"),
                "requests_unchanged",
                "stored_orders",
            )
        }
    ),
}
"""Groups that take minutes start first, so that all workers end at about the same time."""
_OWN_CLUSTER = frozenset({"clusters", "helm"})
_TOOLS = ("tests/e2e/", "tests/load/", "tests/fuzz/test_tools.py")


def group(file: str) -> str:
    """The group of a file, whose path is relative to the root of the project."""
    return next((name for name, files in _GROUPS.items() if file in files), file)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Assigns whole groups to workers, in their order of collection."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


def arrange(items: list[pytest.Item]) -> None:
    """Mark the tests of test tools, and sort the groups, the longest first.

    Raises:
        pytest.UsageError: a file that shares a cluster is in no group.
    """
    for item in items:
        if _file(item).startswith(_TOOLS):
            item.add_marker(pytest.mark.tools)
    sharing = {_file(item) for item in items if _shares(item)}
    if forgotten := {file for file in sharing if group(file) == file}:
        raise pytest.UsageError(f"name the group of {', '.join(sorted(forgotten))} in tests/support/groups.py")
    items.sort(key=_rank)


def _shares(item: pytest.Item) -> bool:
    """Whether a test uses a shared cluster."""
    fixtures = _fixtures(item)
    return "clusters" in fixtures and not {"installation", "cluster"}.isdisjoint(fixtures)


def _rank(item: pytest.Item) -> int:
    names = tuple(_GROUPS)
    name = group(_file(item))
    if name in names:
        return names.index(name)
    return len(names) + _OWN_CLUSTER.isdisjoint(_fixtures(item))


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).as_posix()


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return getattr(item, "fixturenames", ())
