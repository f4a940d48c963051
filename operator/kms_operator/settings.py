"""The operator's settings. The command line builds them, the wiring reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kms.address import Address
from kms.contract import DEFAULT_HTTP_PORT, Settings, default_http_url, lease_name
from kms.resources.secret_names import SERVICE_NAME, serving_authority_name


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The server's ServiceAccount in the release namespace, and the directory for its tokens."""

    service_account: str
    token_directory: Path


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often the operator looks again at what it cannot watch, in seconds.

    `optional` lie between two lists of the optional kinds, `optional_present` while the operator has objects of them,
    `optional_missing` while one is missing that a resource asks for. `longest_requeue` limits the time until a resource
    is reconciled that is due later. `look` lie between two looks at the issuer of an external CA, and `compare` between
    two comparisons of resourceVersions, which go back when etcd is restored from a snapshot.
    """

    optional: float = 60.0
    optional_present: float = 8.0
    optional_missing: float = 10.0
    longest_requeue: float = 3600.0
    look: float = 60.0
    compare: float = 60.0


@dataclass(frozen=True, slots=True)
class OperatorSettings(Settings):
    """All options of `kms-acme operator`.

    The DNS name of the Service `service_name` goes into the serving certificate. `lease_name` names the Lease of the
    release namespace by which one of several replicas is elected.
    `http_url` is the URL at which the server serves revocation lists and CA certificates without TLS, for certificates;
    None: `kms.contract.default_http_url`.
    `server_identity` None: the server has a token of its own.
    `cert_manager_namespace` is where cert-manager reads the Secrets of ClusterIssuers; profiles of
    `cluster_issuers_from`, and of the release namespace, may have issuers in other namespaces.
    Roots of CAs of `trust_from`, and of the release namespace, may be published in other namespaces.
    Profiles of `open_profiles_from`, and of the release namespace, may be open: without required external account
    binding, or without validation of ownership. `*` stands for all namespaces.
    CAs of `external_authorities_from`, and of the release namespace, may be external, or have their keys in key stores.
    Receivers of `notifications_from`, and of the release namespace, are told of certificates.
    A namespace may have `maximum_profiles_per_namespace` profiles that work.
    The operator keeps at most `maximum_secrets` Secrets in the release namespace that belong to CertificateAuthorities
    and EABCredentials, and `maximum_secrets_per_namespace` for those of one namespace.
    """

    metrics_listen: Address = Address("", 9091)
    lease_name: str = lease_name(SERVICE_NAME, "operator")
    http_url: str | None = None
    server_identity: ServerIdentity | None = None
    cert_manager_namespace: str = "cert-manager"
    cluster_issuers_from: tuple[str, ...] = ()
    trust_from: tuple[str, ...] = ()
    open_profiles_from: tuple[str, ...] = ()
    external_authorities_from: tuple[str, ...] = ()
    notifications_from: tuple[str, ...] = ()
    maximum_profiles_per_namespace: int = 100
    maximum_secrets: int = 5_000
    maximum_secrets_per_namespace: int = 1_000

    @property
    def locations(self) -> str:
        """The base URL of revocation lists and CA certificates."""
        return self.http_url or default_http_url(self.external_url, DEFAULT_HTTP_PORT)

    @property
    def serving_authority(self) -> str:
        """The Secret of the release namespace with the operator's serving CA."""
        return serving_authority_name(self.service_name)

    def watches(self, namespace: str) -> bool:
        """Whether the operator reconciles resources of that namespace."""
        return not self.watch_namespaces or namespace in self.watch_namespaces

    def reaches_beyond(self, namespace: str) -> bool:
        """Whether profiles of that namespace may have issuers in other namespaces."""
        return namespace == self.namespace or namespace in self.cluster_issuers_from

    def allows_open_profiles(self, namespace: str) -> bool:
        """Whether profiles of that namespace may be open."""
        return namespace == self.namespace or not {namespace, "*"}.isdisjoint(self.open_profiles_from)

    def allows_external_authorities(self, namespace: str) -> bool:
        """Whether CAs of that namespace may be external, or have their keys in key stores."""
        return namespace == self.namespace or namespace in self.external_authorities_from

    def allows_notifications(self, namespace: str) -> bool:
        """Whether receivers of profiles and CAs of that namespace are told of events."""
        return namespace == self.namespace or namespace in self.notifications_from

    def publishes_beyond(self, namespace: str) -> bool:
        """Whether roots of CAs of that namespace may be published in other namespaces."""
        return namespace == self.namespace or namespace in self.trust_from
