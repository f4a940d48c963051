"""cert-manager on a cluster with a node: its controllers in a pod, with the permissions from its chart.

    CertManager(dns01_nameservers=(f"{cluster.machine_address}:53",), minimum_backoff="5s").install(cluster)

There is no webhook, so invalid objects are not rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.install import apply_kinds
from e2e.cluster.node.images import BuiltImage
from e2e.cluster.node.node_cluster import NodeCluster

MODULE = "github.com/cert-manager/cert-manager"
RIGHTS = Path(__file__).with_name("manifests") / "cert-manager" / "rights.yaml"
ROLE = "cert-manager-test"
_NAME = "cert-manager"
_LABELS = {"app.kubernetes.io/name": _NAME}


@dataclass(frozen=True, kw_only=True, slots=True)
class CertManager:
    """The options of its controllers. Durations have Go's format: "5s", "1h"."""

    namespace: str = "cert-manager"
    """The namespace of the controllers, and of the Secrets of ClusterIssuers."""
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    """Feature gates, such as {"ACMEUseARI": True}."""
    http01_nameservers: tuple[str, ...] = ()
    """ADDRESS:PORT of DNS servers for the http-01 self check. Default: those of the pod."""
    dns01_nameservers: tuple[str, ...] = ()
    """The same for dns-01. They are queried directly, instead of the authoritative servers."""
    check_period: str = "1s"
    """The interval of the dns-01 self check."""
    minimum_backoff: str = "1h"
    """The back-off after the first failure of a Certificate. The default is cert-manager's."""
    maximum_backoff: str = "32h"
    """The maximum back-off. The default is cert-manager's."""
    owner_references: bool = False
    """Whether the Secret of a Certificate is deleted with it."""

    def install(self, cluster: NodeCluster) -> None:
        """Apply CRDs, permissions and controllers, and wait until the controllers run.

        Raises:
            NoSource, BuildFailed: the program or its CRDs are not available.
            CommandFailed: they do not start within two minutes.
        """
        for each in self._images(cluster):
            cluster.load_image(each.archive)
        apply_kinds(cluster, cluster.parts.builder("certmanager").module(MODULE) / "deploy" / "crds")
        cluster.learn_new_kinds()
        cluster.kubectl("apply", "--server-side", "--filename", RIGHTS)
        self.configure(cluster)

    def configure(self, cluster: NodeCluster) -> None:
        """Change the options of an installed cert-manager, and wait until the controllers run."""
        controllers, solver = self._images(cluster)
        manifests = [*self._identity(), self._deployment(controllers.reference, solver.reference)]
        cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(manifests))
        self.wait(cluster)

    def wait(self, cluster: NodeCluster) -> None:
        """Wait until the controllers run. Raises CommandFailed after two minutes."""
        cluster.kubectl("rollout", "status", f"deployment/{_NAME}", f"--namespace={self.namespace}", "--timeout=120s")

    def restart(self, cluster: NodeCluster) -> None:
        """Restart the controllers, and wait until the new ones run."""
        cluster.kubectl("rollout", "restart", f"deployment/{_NAME}", f"--namespace={self.namespace}")
        self.wait(cluster)

    def logs(self, cluster: NodeCluster) -> str:
        """The log of the controllers."""
        return cluster.kubectl("logs", f"deployment/{_NAME}", f"--namespace={self.namespace}", "--tail=-1")

    def _images(self, cluster: NodeCluster) -> tuple[BuiltImage, BuiltImage]:
        return cluster.parts.image("certmanager", "cert-manager"), cluster.parts.image("images", "solver")

    def _options(self, solver: str) -> Iterator[str]:
        gates = ",".join(f"{name}={str(on).lower()}" for name, on in self.feature_gates.items())
        yield f"--cluster-resource-namespace={self.namespace}"
        yield f"--acme-http01-solver-image={solver}"
        yield f"--acme-http01-solver-nameservers={','.join(self.http01_nameservers)}"
        yield f"--dns01-recursive-nameservers={','.join(self.dns01_nameservers)}"
        yield f"--dns01-recursive-nameservers-only={str(bool(self.dns01_nameservers)).lower()}"
        yield f"--dns01-check-retry-period={self.check_period}"
        yield f"--certificate-request-minimum-backoff-duration={self.minimum_backoff}"
        yield f"--certificate-request-maximum-backoff-duration={self.maximum_backoff}"
        yield f"--enable-certificate-owner-ref={str(self.owner_references).lower()}"
        yield f"--feature-gates={gates}"

    def _identity(self) -> Iterator[dict[str, Any]]:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self._metadata()}
        yield {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{ROLE}-{self.namespace}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": _NAME, "namespace": self.namespace}],
        }

    def _deployment(self, image: str, solver: str) -> dict[str, Any]:
        container = {
            "name": _NAME,
            "image": image,
            "imagePullPolicy": "Never",
            "args": list(self._options(solver)),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        pod = {
            "serviceAccountName": _NAME,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self._metadata(),
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": _LABELS},
                "template": {"metadata": {"labels": _LABELS}, "spec": pod},
            },
        }

    def _metadata(self) -> dict[str, Any]:
        return {"name": _NAME, "namespace": self.namespace, "labels": _LABELS}
