"""CertificateAuthority: what signs."""

from __future__ import annotations

from typing import Literal

import msgspec

from kms.resources.meta import AllowedNamespaces, Condition, LocalRef, ObjectMeta, Selector, Struct, Time


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
    """A CA whose key the operator makes and keeps in the release namespace."""

    subject: Subject
    private_key: PrivateKey = PrivateKey()
    duration: str = "87600h"
    issuer_ref: LocalRef | None = None
    path_length: int | None = None
    name_constraints: NameConstraints | None = None


class ImportedAuthority(Struct, frozen=True, kw_only=True):
    """A CA whose certificate and key a kubernetes.io/tls Secret of the same namespace holds."""

    secret_ref: LocalRef


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
    """Exactly one of `internal` and `imported` is set: that is the type of the CA.

    Certificates that were signed before `renew_issued_before` are to be renewed from then on.
    `cross_certificates` are chains (PEM) that begin with the certificate of another CA for this CA's key.
    """

    internal: InternalAuthority | None = None
    imported: ImportedAuthority | None = None
    renew_issued_before: Time | None = None
    cross_certificates: tuple[str, ...] = ()
    trust: Trust | None = None


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

    `alternate_chains` are the valid chains of cross certificates, as clients get them after an end entity's.
    `former_roots` are those that have not expired, the latest first. `former_keys` are those whose certificates have
    not expired, the latest first: certificates that they signed stay on the CA's revocation list.
    """

    observed_generation: int | None = None
    type: str | None = None
    subject: str | None = None
    certificate: str | None = None
    chain: str | None = None
    alternate_chains: tuple[str, ...] = ()
    serial_number: str | None = None
    subject_key_id: str | None = msgspec.field(default=None, name="subjectKeyID")
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
    def key_ids(self) -> tuple[str, ...]:
        """The identifiers of the CA's key and of its former keys, in hexadecimal."""
        current = self.status.subject_key_id
        former = (each.subject_key_id for each in self.status.former_keys)
        return tuple(dict.fromkeys((*([current] if current else ()), *former)))
