"""What the operator is told at start. Built by the command line, read by the wiring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kms.address import Address
from kms.contract import Settings, lease_name
from kms.resources.secret_names import SERVICE_NAME, serving_authority_name


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Whose tokens the server is to act under (a ServiceAccount of the release namespace), and where they are put."""

    service_account: str
    token_directory: Path


@dataclass(frozen=True, slots=True)
class OperatorSettings(Settings):
    """All options of `kms-acme operator`.

    The DNS name of the Service `service_name` goes into the serving certificate. `lease_name` names the Lease of the
    release namespace by which one of several replicas is elected.
    `server_identity` None: the server has an identity of its own already.
    `cert_manager_namespace` is where cert-manager reads the Secrets of ClusterIssuers; profiles of
    `cluster_issuers_from`, and of the release namespace, may have issuers made beyond their own namespace.
    Roots of CAs of `trust_from`, and of the release namespace, may be published beyond it.
    """

    metrics_listen: Address = Address("", 9091)
    lease_name: str = lease_name(SERVICE_NAME, "operator")
    server_identity: ServerIdentity | None = None
    cert_manager_namespace: str = "cert-manager"
    cluster_issuers_from: tuple[str, ...] = ()
    trust_from: tuple[str, ...] = ()

    @property
    def serving_authority(self) -> str:
        """The Secret with the CA that the operator makes for the server."""
        return serving_authority_name(self.service_name)

    def watches(self, namespace: str) -> bool:
        """Whether resources of that namespace are ours to reconcile."""
        return not self.watch_namespaces or namespace in self.watch_namespaces

    def reaches_beyond(self, namespace: str) -> bool:
        """Whether profiles of that namespace may have issuers made elsewhere."""
        return namespace == self.namespace or namespace in self.cluster_issuers_from

    def publishes_beyond(self, namespace: str) -> bool:
        """Whether roots of CAs of that namespace may be published elsewhere."""
        return namespace == self.namespace or namespace in self.trust_from
