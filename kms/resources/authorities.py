"""CertificateAuthority: what signs."""

from __future__ import annotations

from typing import Literal

import msgspec

from kms.resources.meta import AllowedNamespaces, Condition, LocalRef, ObjectMeta, Selector, Struct, Time
from kms.resources.notifications import AuthorityNotifications


class PrivateKey(Struct, frozen=True, kw_only=True):
    """The kind of key pair to make. RSA 2048, 3072, 4096; ECDSA 256, 384, 521; Ed25519 has no size."""

    algorithm: Literal["RSA", "ECDSA", "Ed25519"] = "ECDSA"
    size: int | None = None


class Subject(Struct, frozen=True, kw_only=True):
    """A distinguished name, attribute by attribute."""

    common_name: str = ""
    organizations: tuple[str, ...] = ()
    organizational_units: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    localities: tuple[str, ...] = ()
    provinces: tuple[str, ...] = ()


class NameSubtrees(Struct, frozen=True, kw_only=True):
    """Names of RFC 5280, 4.2.1.10: DNS subtrees and CIDR blocks."""

    dns_domains: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()


class NameConstraints(Struct, frozen=True, kw_only=True):
    """The names that certificates below this CA may carry."""

    permitted: NameSubtrees = NameSubtrees()
    excluded: NameSubtrees = NameSubtrees()


class InternalAuthority(Struct, frozen=True, kw_only=True):
    """A CA whose key the operator makes, and keeps in the release namespace unless there is a `key_store`.

    The CA of `issuer_ref` signs it, or with `signed_by` a CA elsewhere, whose answer to `status.request` is
    `certificate` (PEM, with those above it); it is self-signed without either.
    """

    subject: Subject
    private_key: PrivateKey = PrivateKey()
    duration: str = "87600h"
    issuer_ref: LocalRef | None = None
    signed_by: Literal["Request"] | None = None
    certificate: str | None = None
    path_length: int | None = None
    name_constraints: NameConstraints | None = None
    key_store: KeyStore | None = None


class ImportedAuthority(Struct, frozen=True, kw_only=True):
    """A CA whose certificate and key a kubernetes.io/tls Secret of the same namespace holds."""

    secret_ref: LocalRef


class IssuerRef(Struct, frozen=True, kw_only=True):
    """An issuer of cert-manager, or of a group that cert-manager's CertificateRequests may name."""

    name: str
    kind: str = "Issuer"
    group: str = "cert-manager.io"


class CertManagerAuthority(Struct, frozen=True, kw_only=True):
    """A CA that is asked through a CertificateRequest of cert-manager."""

    issuer_ref: IssuerRef


class SignerAuthority(Struct, frozen=True, kw_only=True):
    """A CA that is asked through a CertificateSigningRequest of Kubernetes; `name` is its signerName."""

    name: str


class SecretKeyRef(Struct, frozen=True, kw_only=True):
    """One key of a Secret in the same namespace."""

    name: str
    key: str


class KubernetesAuth(Struct, frozen=True, kw_only=True):
    """Vault's auth method `kubernetes` or `jwt`: a token of a ServiceAccount of the CA's namespace.

    `audiences` are added to those that the operator asks for.
    """

    role: str
    service_account_ref: LocalRef
    mount_path: str = "kubernetes"
    audiences: tuple[str, ...] = ()


class AppRoleAuth(Struct, frozen=True, kw_only=True):
    """Vault's auth method `approle`; the Secret has the secret ID."""

    role_id: str = msgspec.field(name="roleID")
    secret_ref: SecretKeyRef
    mount_path: str = "approle"


class VaultAuth(Struct, frozen=True, kw_only=True):
    """How to log in to Vault or OpenBao. Exactly one field is set."""

    kubernetes: KubernetesAuth | None = None
    app_role: AppRoleAuth | None = None
    token_secret_ref: SecretKeyRef | None = None


class VaultServer(Struct, frozen=True, kw_only=True):
    """A server of Vault or OpenBao: its URL, whom to trust there (PEM; None: the system's roots), and the login."""

    server: str
    auth: VaultAuth
    namespace: str | None = None
    ca_bundle: str | None = None


class TransitKeyStore(VaultServer, frozen=True, kw_only=True):
    """A key of the transit secrets engine. Without `key_version`, the latest version when the CA begins."""

    key: str
    mount_path: str = "transit"
    key_version: int | None = None

    @property
    def login(self) -> VaultServer:
        """The server, without the key: CAs with different keys there may have the same one."""
        return VaultServer(server=self.server, auth=self.auth, namespace=self.namespace, ca_bundle=self.ca_bundle)


class PKCS11KeyStore(Struct, frozen=True, kw_only=True):
    """A key pair of a PKCS #11 token: the path of the module, and the labels of token and key."""

    module: str
    token: str
    key: str
    pin_secret_ref: SecretKeyRef


class KeyStore(Struct, frozen=True, kw_only=True):
    """Where the key of a CA is, if not in a Secret. Exactly one field is set."""

    transit: TransitKeyStore | None = None
    pkcs11: PKCS11KeyStore | None = None


class VaultAuthority(VaultServer, frozen=True, kw_only=True):
    """A CA of the PKI secrets engine. `path` is `<mount>/sign/<role>` or `<mount>/issuer/<ref>/sign/<role>`."""

    path: str


class ExternalAuthority(Struct, frozen=True, kw_only=True):
    """A CA whose key is somebody else's. Exactly one of `cert_manager`, `signer` and `vault` is set.

    Whatever is issued must chain to one of `trust_anchors` (PEM, one certificate each). `revocation` without a value
    is Propagate for vault and Refuse otherwise. `maximum_requests` are under way at once.
    """

    cert_manager: CertManagerAuthority | None = None
    signer: SignerAuthority | None = None
    vault: VaultAuthority | None = None
    trust_anchors: tuple[str, ...] = ()
    approval: Literal["Wait", "Automatic"] = "Wait"
    timeout: str = "10m"
    revocation: Literal["Refuse", "Record", "Propagate"] | None = None
    maximum_requests: int = 50


class TrustConfigMap(Struct, frozen=True, kw_only=True):
    """ConfigMaps of one name, in the namespaces that are chosen."""

    name: str
    key: str = "ca.crt"
    namespaces: AllowedNamespaces = AllowedNamespaces()


class TrustBundle(Struct, frozen=True, kw_only=True):
    """A Bundle of trust-manager, which makes ConfigMaps of its name; without `selector` in all namespaces."""

    name: str
    key: str = "ca.crt"
    selector: Selector | None = None


class TrustClusterBundle(Struct, frozen=True, kw_only=True):
    """A ClusterTrustBundle; that of a signer is named after it, and `name` is the rest."""

    name: str
    signer_name: str | None = None


class Trust(Struct, frozen=True, kw_only=True):
    """Where the root is published, and for how long after it was replaced."""

    config_map: TrustConfigMap | None = None
    bundle: TrustBundle | None = None
    cluster_trust_bundle: TrustClusterBundle | None = None
    overlap: str = "720h"


class AuthoritySpec(Struct, frozen=True, kw_only=True):
    """Exactly one of `internal`, `imported` and `external` is set: that is the type of the CA.

    Certificates that were signed before `renew_issued_before` are to be renewed from then on.
    `cross_certificates` are chains (PEM) that begin with the certificate of another CA for this CA's key.
    """

    internal: InternalAuthority | None = None
    imported: ImportedAuthority | None = None
    external: ExternalAuthority | None = None
    renew_issued_before: Time | None = None
    cross_certificates: tuple[str, ...] = ()
    trust: Trust | None = None
    notifications: AuthorityNotifications | None = None


class FormerRoot(Struct, frozen=True, kw_only=True):
    """A root (PEM) that the CA had until `replaced_at`."""

    certificate: str
    replaced_at: Time


class FormerKey(Struct, frozen=True, kw_only=True):
    """A key of an imported CA that another one has replaced; its certificate ends at `not_after`."""

    subject_key_id: str = msgspec.field(name="subjectKeyID")
    not_after: Time


class AuthorityStatus(Struct, frozen=True, kw_only=True):
    """Written by the operator. `certificate` is one PEM block; `chain` has it and those above it, up to the root.

    `request` (PEM) is the certificate request of a CA that is signed by request.
    `alternate_chains` are the valid chains of cross certificates, as clients get them after an end entity's.
    `key_version` is that of the key in a key store that has versions; it never changes.
    `former_roots` are those that have not expired, the latest first. `former_keys` are those whose certificates have
    not expired, the latest first: certificates that they signed stay on the CA's revocation list.
    """

    observed_generation: int | None = None
    type: str | None = None
    subject: str | None = None
    certificate: str | None = None
    chain: str | None = None
    request: str | None = None
    alternate_chains: tuple[str, ...] = ()
    serial_number: str | None = None
    subject_key_id: str | None = msgspec.field(default=None, name="subjectKeyID")
    key_version: int | None = None
    not_before: Time | None = None
    not_after: Time | None = None
    former_roots: tuple[FormerRoot, ...] = ()
    former_keys: tuple[FormerKey, ...] = ()
    conditions: tuple[Condition, ...] = ()


class CertificateAuthority(Struct, frozen=True, kw_only=True):
    """`kca`: an issuing CA."""

    metadata: ObjectMeta
    spec: AuthoritySpec
    status: AuthorityStatus = AuthorityStatus()

    @property
    def title(self) -> str:
        """Kind, namespace and name, for messages."""
        return f"CertificateAuthority {self.metadata.namespace}/{self.metadata.name}"

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The identifiers of the CA's key and of its former keys, in hexadecimal."""
        current = self.status.subject_key_id
        former = (each.subject_key_id for each in self.status.former_keys)
        return tuple(dict.fromkeys((*([current] if current else ()), *former)))
