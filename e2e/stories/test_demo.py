"""A newcomer types `make demo`, which is `python -m e2e.demo`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from e2e.cluster import Cluster, sources
from e2e.demo import picture
from e2e.stories.traces import MARK, left_running
from e2e.support import tools

ROOT = Path(__file__).parents[2]
LIMIT = 300.0
"""Time limit of the whole demo in seconds, on a busy machine."""

pytestmark = pytest.mark.cluster


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a new user, with the control plane already built."""
    if sources.OWN_CLUSTER in os.environ:
        pytest.skip("the demo starts its own cluster, but this machine is configured to use another one")
    for tool in (tools.CERTBOT, tools.OPENSSL, tools.CURL):
        tools.required(tool)
    # The user's default kubeconfig is ignored unless it is named.
    environment = {**os.environ, "KUBECONFIG": "/nowhere", "XDG_STATE_HOME": str(tmp_path), MARK: str(tmp_path)}
    yield environment
    demo(environment, "--stop")


def demo(environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo."""
    return subprocess.run(
        (sys.executable, "-m", "e2e.demo", *options),
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_the_demo_shows_every_command_keeps_running_if_asked_to_and_stops_without_a_trace(
    home: Mapping[str, str],
) -> None:
    done = demo(home, "--keep")
    assert done.returncode == 0, done.stdout
    for command in (
        "kubectl apply -f",
        "kms-acme dev --external-url",
        "kubectl -n pki wait --for=condition=Ready",
        "REQUESTS_CA_BUNDLE=ca.crt certbot certonly",
        "openssl verify",
        "curl --silent",
        "REQUESTS_CA_BUNDLE=ca.crt certbot renew",
        "kubectl get kms,kms-records -A",
    ):
        assert f"  $ {command}" in done.stdout, command
    shown = picture.steps(picture.drawn(picture.PICTURE.read_text()))
    assert shown == picture.steps(picture.parts(done.stdout)), picture.__doc__
    assert "Successfully received certificate" in done.stdout
    assert "certificate verified: 0" in done.stdout
    assert "e2e.demo --stop" in done.stdout
    assert any("kube-apiserver" in each for each in left_running(home[MARK]))
    assert demo(home, "--stop").returncode == 0
    assert left_running(home[MARK]) == []


@pytest.mark.tools
def test_the_demo_says_which_step_failed_and_why_and_leaves_nothing_running(
    home: Mapping[str, str], tmp_path: Path
) -> None:
    # A user's certbot configuration that conflicts with `--standalone`.
    own = tmp_path / "config" / "letsencrypt" / "cli.ini"
    own.parent.mkdir(parents=True)
    own.write_text("preferred-challenges = dns\n")
    done = demo({**home, "XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert done.returncode == 1, done.stdout
    _, failed, report = done.stdout.partition("FAILED in the step “certbot opens an account")
    assert failed, done.stdout
    assert "the command exited with code 1" in report
    assert "kms-acme.log:" in report
    assert "directory" in report  # a line of the server's log
    assert left_running(home[MARK]) == []


def shared_state(cluster: Cluster) -> list[str]:
    """All objects that are in no namespace, as far as a demo could make any."""
    return sorted(cluster.kubectl("get", "ns,crd,clusterrole,clusterrolebinding", "--output=name").split())


@pytest.mark.tools
def test_the_demo_on_a_cluster_that_is_named_builds_nothing_and_removes_what_it_made(
    home: Mapping[str, str], clusters: Callable[..., AbstractContextManager[Cluster]], tmp_path: Path
) -> None:
    with clusters() as given:
        (one, *others) = sorted((ROOT / "crds").glob("*.yaml"))
        given.kubectl("apply", "--server-side", "--filename", one)  # in use by others: it must stay
        before = shared_state(given)
        unbuilt = {**home, "PATH": given.env["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = demo(unbuilt, f"--kubeconfig={given.kubeconfig}", "--context=kms-acme")
        assert done.returncode == 0, done.stdout
        assert not (tmp_path / "cache").exists()
        assert "It builds nothing" in done.stdout
        announced, _, made = done.stdout.partition("$ kubectl create namespace")
        assert announced.count("    the CustomResourceDefinition ") == len(others)
        assert "It uses the other CustomResourceDefinitions of the cluster unchanged." in announced
        assert re.search(r"    the namespace kms-acme-demo-\w{6}, with all", announced)
        assert "certificate verified: 0" in made
        assert "certificateprofile.pki.kms.hanzo.ai/web" in made
        assert shared_state(given) == before
    assert left_running(home[MARK]) == []
