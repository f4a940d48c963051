"""The chart on a node, installed with our image, open profiles allowed, and otherwise default values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from e2e.chart.helm import CHART, NAMESPACE, RELEASE, Helm
from e2e.cluster.node import NodeCluster
from e2e.support import http01
from tests.support.installation import Site

_OPEN = {"openProfilesFrom": ["*"]}
"""Tests of other features use profiles without validation."""


@dataclass(frozen=True)
class Release(Site):
    """The installed chart."""

    cluster: NodeCluster
    helm: Helm

    @property
    def address(self) -> str:
        """The URL of the Service from this machine."""
        return f"https://{self.get('service')['spec']['clusterIP']}"

    def get(self, kind: str, name: str = RELEASE) -> dict[str, Any]:
        """An object of the release namespace."""
        return self.object(kind, NAMESPACE, name)

    def run(self, container: str, *command: str) -> str:
        """Run a command in a container of the Deployment."""
        where = (f"deployment/{RELEASE}", f"--container={container}", f"--namespace={NAMESPACE}")
        return self.cluster.kubectl("exec", *where, "--", *command)

    def counted(self, name: str, **labels: str) -> float:
        """The sum of a metric with these labels over all servers."""
        families = (each for pod in self._pods() for each in text_string_to_metric_families(self._metrics(pod)))
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _metrics(self, pod: str) -> str:
        containers = self.get("deployment")["spec"]["template"]["spec"]["containers"]
        (ports,) = (each["ports"] for each in containers if each["name"] == "server")
        (port,) = (each["containerPort"] for each in ports if each["name"] == "metrics")
        return self.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy/metrics")

    def _pods(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.objects("pods", NAMESPACE)]

    def restart(self) -> None:
        """Replace all pods, and wait until the new ones are ready and the old ones are gone."""
        before = [f"pod/{each}" for each in self._pods()]
        where = (f"deployment/{RELEASE}", f"--namespace={NAMESPACE}")
        self.cluster.kubectl("rollout", "restart", *where)
        self.cluster.kubectl("rollout", "status", *where, "--timeout=120s")
        self.cluster.kubectl("wait", "--for=delete", "--timeout=90s", f"--namespace={NAMESPACE}", *before)

    @contextmanager
    def changed(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Upgrade the chart to these values for the duration of the block, then back to its defaults."""
        self._upgrade(values)
        try:
            yield
        finally:
            self._upgrade({})

    def _upgrade(self, values: Mapping[str, Any]) -> None:
        all_values = {**_image(self.cluster), **values, "operator": {**_OPEN, **values.get("operator", {})}}
        self.helm.with_values(
            all_values, "upgrade", RELEASE, CHART, f"--namespace={NAMESPACE}", "--wait", "--timeout=300s"
        )


@contextmanager
def installed(cluster: NodeCluster, helm: Helm) -> Iterator[Release]:
    """Install the chart into a namespace with the restricted pod security standard, for the duration of the block."""
    there = Helm(helm.program, helm.home, cluster.env)
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    try:
        there.with_values(
            {**_image(cluster), "operator": _OPEN},
            "install",
            RELEASE,
            CHART,
            f"--namespace={NAMESPACE}",
            "--wait",
            "--timeout=300s",
        )
        yield Release(cluster=cluster, answerer=http01.Answerer(), helm=there)
    finally:
        there.run("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--ignore-not-found", "--wait")
        cluster.kubectl("delete", "namespace", NAMESPACE)


def _image(cluster: NodeCluster) -> dict[str, Any]:
    """The values for our image."""
    return {"image": {"repository": cluster.image.repository, "tag": cluster.image.tag, "pullPolicy": "Never"}}
