"""The chart with its defaults on a real node: pods that run restricted, `helm test`, a certificate, two identities."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from e2e.chart.helm import NAMESPACE, RELEASE
from e2e.cluster import CommandFailed
from e2e.support import dns, http01
from tests.support.installation import ZONE
from tests.support.release import Release

SERVER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-server"
READ = """
import json, ssl, urllib.error, urllib.request
folder = "/var/run/secrets/kms-acme/server"
request = urllib.request.Request(
    "https://kubernetes.default.svc/api/v1/namespaces/%s/secrets",
    headers={"Authorization": "Bearer " + open(folder + "/token").read()},
)
try:
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=folder + "/ca.crt")) as answer:
        print(answer.status)
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["message"])
"""
"""Run inside the server's container: what it could do if somebody had taken it over."""


@pytest.fixture(scope="module", autouse=True)
def network(release: Release) -> Iterator[None]:
    """A network in which the names of clients lead to this machine."""
    address = release.cluster.machine_address
    with (
        dns.serving(dns.Zone(ZONE, dns.Addresses(address)), host=address, port=53),
        http01.serving(release.answerer, host=address, port=80),
    ):
        yield


@pytest.fixture
def team(release: Release) -> Iterator[str]:
    name = f"team-{secrets.token_hex(5)}"
    release.cluster.kubectl("create", "namespace", name)
    yield name
    release.cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_helm_test_passes(release: Release) -> None:
    said = release.helm.run("test", RELEASE, f"--namespace={NAMESPACE}", "--timeout=300s")
    assert "Succeeded" in said
    left = release.cluster.kubectl("get", "kca,kpol,kprof,eab", f"--namespace={NAMESPACE}", "--output=name")
    assert left == "", "the profile of the test is taken away again"


async def test_a_client_obtains_a_certificate(release: Release, team: str) -> None:
    enrollment = release.profile(team)
    external_account = release.credential(team)
    assert enrollment.directory_url == f"https://kms-acme.kms-acme.svc/acme/{team}/web/directory"
    async with release.client(enrollment, servers=[release.address], external_account=external_account) as client:
        await client.obtain([f"web.{ZONE}"], release.answerer.add)


@pytest.mark.requirement("SEC57")
def test_the_servers_container_reads_secrets_in_the_release_namespace_and_nowhere_else(
    release: Release, team: str
) -> None:
    def read(namespace: str) -> str:
        return release.run("server", "/opt/kms-acme/bin/python3", "-c", READ % namespace)

    assert read(NAMESPACE).split() == ["200"]
    for elsewhere in (team, "default", "kube-system"):
        said = read(elsewhere)
        assert said.startswith("403 ")
        assert SERVER in said


@pytest.mark.requirement("SEC57")
def test_the_servers_container_has_no_token_of_the_pod_and_cannot_write_its_own(release: Release) -> None:
    def python(program: str) -> str:
        return release.run("server", "/opt/kms-acme/bin/python3", "-c", program)

    assert python("import os; print(os.path.exists('/var/run/secrets/kubernetes.io'))").strip() == "False"
    with pytest.raises(CommandFailed, match="Read-only file system"):
        python("open('/var/run/secrets/kms-acme/server/token', 'w')")
    with pytest.raises(CommandFailed, match="Read-only file system"):
        python("open('/anything', 'w')")
