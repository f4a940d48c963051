"""cert-manager's real controllers and its real webhook as processes beside a control plane, without pods."""

from __future__ import annotations

import json
import os
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from e2e.cluster import Cluster
from e2e.cluster.install import apply_kinds
from e2e.cluster.node import programs
from e2e.cluster.node.certmanager import MODULE, RIGHTS, ROLE
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import Process, last_lines
from e2e.cluster.progress import Progress
from tests.support.eventually import eventually

SIGNERS = "ExperimentalCertificateSigningRequestControllers"
"""The feature gate of the controllers that sign CertificateSigningRequests."""


@contextmanager
def running_cert_manager(cluster: Cluster, folder: Path, *options: str) -> Iterator[None]:
    """Run both on this cluster, the controllers with these options; its CRDs stay.

    Raises:
        NoSource, BuildFailed: the programs are not available.
    """
    progress = Progress(sys.stderr)
    controllers = programs.builder("certmanager", progress)
    webhook = programs.builder("certmanager-webhook", progress).ensure() / "cert-manager-webhook"
    binary = controllers.ensure() / "cert-manager"
    apply_kinds(cluster, controllers.module(MODULE) / "deploy" / "crds")
    cluster.learn_new_kinds()
    folder.mkdir(parents=True, exist_ok=True)
    authority, port = trustme.CA(), free_port()
    served = authority.issue_cert(LOOPBACK)
    served.private_key_pem.write_to_path(str(folder / "webhook.key"))
    served.cert_chain_pems[0].write_to_path(str(folder / "webhook.crt"))
    environment = {**os.environ, **cluster.env}
    processes = [
        Process.start(
            [
                webhook,
                f"--kubeconfig={cluster.kubeconfig}",
                f"--secure-port={port}",
                f"--healthz-port={free_port()}",
                "--metrics-listen-address=0",
                f"--tls-cert-file={folder / 'webhook.crt'}",
                f"--tls-private-key-file={folder / 'webhook.key'}",
            ],
            log=folder / "webhook.log",
            env=environment,
        ),
        Process.start(
            [binary, f"--kubeconfig={_identity(cluster)}", f"--feature-gates={SIGNERS}=true", *options],
            log=folder / "cert-manager.log",
            env=environment,
        ),
    ]
    try:
        documents = "\n---\n".join(map(json.dumps, _configurations(port, authority.cert_pem.bytes())))
        cluster.kubectl("apply", "--server-side", "--filename=-", stdin=documents)
        eventually(lambda: _answers(cluster), seconds=30, why=lambda: last_lines(folder / "webhook.log"))
        yield
    finally:
        for each in processes:
            each.stop(10)


def _identity(cluster: Cluster) -> Path:
    """The kubeconfig of a ServiceAccount with the rights of cert-manager's chart: its approver approves by these."""
    name = "cert-manager"
    cluster.kubectl("apply", "--server-side", "--filename", RIGHTS)
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("create", "serviceaccount", name, f"--namespace={name}")
    cluster.kubectl("create", "clusterrolebinding", name, f"--clusterrole={ROLE}", f"--serviceaccount={name}:{name}")
    return cluster.kubeconfig_for(name, name)


def _answers(cluster: Cluster) -> bool:
    """Whether the webhook refuses what is no certificate request."""
    invalid = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "CertificateRequest",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"request": b64encode(b"nothing").decode(), "issuerRef": {"name": "none"}},
    }
    printed = cluster.kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(invalid), check=False)
    return "webhook.cert-manager.io" in printed and "denied" in printed


def _configurations(port: int, authority: bytes) -> Iterator[dict[str, Any]]:
    """As in cert-manager's chart, by URL."""
    for kind, path, operations, resources, groups in (
        ("Validating", "validate", ["CREATE", "UPDATE"], ["*/*"], ["cert-manager.io", "acme.cert-manager.io"]),
        ("Mutating", "mutate", ["CREATE"], ["certificaterequests"], ["cert-manager.io"]),
    ):
        yield {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": "cert-manager-webhook"},
            "webhooks": [
                {
                    "name": "webhook.cert-manager.io",
                    "rules": [
                        {"apiGroups": groups, "apiVersions": ["v1"], "operations": operations, "resources": resources}
                    ],
                    "admissionReviewVersions": ["v1"],
                    "matchPolicy": "Equivalent",
                    "timeoutSeconds": 10,
                    "failurePolicy": "Fail",
                    "sideEffects": "None",
                    "clientConfig": {
                        "url": f"https://{LOOPBACK}:{port}/{path}",
                        "caBundle": b64encode(authority).decode(),
                    },
                }
            ],
        }
