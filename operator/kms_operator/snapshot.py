"""What the cluster looks like to one reconciliation: the only input of the pure functions that decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kms.resources.authorities import CertificateAuthority
from kms.resources.certmanager import Issuer
from kms.resources.core import ConfigMap, Namespace, Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import BUNDLES, CONFIG_MAPS, Kind
from kms.resources.meta import AllowedNamespaces, LocalRef, Resource, key_of
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import MANAGED_BY, MANAGER, OWNER, OWNER_UID
from kms.resources.trust import Bundle, ClusterTrustBundle
from kms_operator.settings import OperatorSettings

Key = tuple[str, str]
"""(namespace, name)."""
SHOWN = 400
"""Characters of an annotation, or of an answer of the API server, that a condition repeats."""


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why a kind of others is not known: the reason for programs, and a sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is known, by (namespace, name).

    `secrets` holds those with our label, and those that the reconciled resource names, read live. A Secret that is
    not in it does not exist: the controller has asked the API server before it says so. `accounts` counts open accounts
    by the UID of their EABCredential. `issuers` are those of cert-manager that carry our label or were read live; a
    ClusterIssuer has no namespace. The same holds for `config_maps`, `bundles` and `cluster_trust_bundles`. `unavailable`
    has the plurals of others' kinds that cannot be had, `served` the version of a kind that can.
    """

    settings: OperatorSettings
    authorities: Mapping[Key, CertificateAuthority] = field(default_factory=dict)
    policies: Mapping[Key, CertificatePolicy] = field(default_factory=dict)
    profiles: Mapping[Key, CertificateProfile] = field(default_factory=dict)
    credentials: Mapping[Key, EABCredential] = field(default_factory=dict)
    namespaces: Mapping[Key, Namespace] = field(default_factory=dict)
    secrets: Mapping[Key, Secret] = field(default_factory=dict)
    accounts: Mapping[str, int] = field(default_factory=dict)
    issuers: Mapping[Key, Issuer] = field(default_factory=dict)
    config_maps: Mapping[Key, ConfigMap] = field(default_factory=dict)
    bundles: Mapping[Key, Bundle] = field(default_factory=dict)
    cluster_trust_bundles: Mapping[Key, ClusterTrustBundle] = field(default_factory=dict)
    unavailable: Mapping[str, Unavailability] = field(default_factory=dict)
    served: Mapping[str, Kind[Any]] = field(default_factory=dict)

    def authority(self, ref: LocalRef, *, namespace: str) -> CertificateAuthority | None:
        """The CertificateAuthority that a resource of `namespace` refers to."""
        return self.authorities.get((namespace, ref.name))

    def policy(self, ref: LocalRef, *, namespace: str) -> CertificatePolicy | None:
        """The CertificatePolicy that a resource of `namespace` refers to."""
        return self.policies.get((namespace, ref.name))

    def profile(self, key: Key) -> CertificateProfile | None:
        """The CertificateProfile with that namespace and name."""
        return self.profiles.get(key)

    def secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret with that name, if there is one."""
        return self.secrets.get((namespace, name))

    def internal(self, name: str) -> Secret | None:
        """A Secret of the release namespace."""
        return self.secret(self.settings.namespace, name)

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """The labels of a namespace; none where it is unknown, so that no selector that asks for one matches."""
        found = self.namespaces.get(("", namespace))
        return found.metadata.labels if found else {}

    def chooses(self, rule: AllowedNamespaces, namespace: str, *, of: str) -> bool:
        """Whether `rule`, of a resource in namespace `of`, chooses this namespace."""
        match rule.from_:
            case "All":
                return True
            case "Selector":
                # A selector that is missing selects nothing; an empty one everything, as everywhere in Kubernetes.
                return rule.selector is not None and rule.selector.matches(self.labels_of(namespace))
            case "Same":
                return namespace == of

    def chosen(self, rule: AllowedNamespaces, *, of: str) -> list[str]:
        """The namespaces that `rule` chooses, of those that are there to stay."""
        living = sorted(name for (_, name), each in self.namespaces.items() if each.metadata.deletion_timestamp is None)
        return [each for each in living if self.chooses(rule, each, of=of)]

    def published(self, kind: Kind[Any]) -> Mapping[Key, Any]:
        """What is known of one of the kinds that hold roots."""
        if kind is CONFIG_MAPS:
            return self.config_maps
        return self.bundles if kind is BUNDLES else self.cluster_trust_bundles

    def with_live(self, found: Iterable[Resource]) -> Snapshot:
        """The same, and these objects, which were read just now."""
        secrets, credentials, issuers = dict(self.secrets), dict(self.credentials), dict(self.issuers)
        config_maps, bundles = dict(self.config_maps), dict(self.bundles)
        cluster_trust_bundles = dict(self.cluster_trust_bundles)
        for each in found:
            match each:
                case Secret():
                    secrets[key_of(each)] = each
                case EABCredential():
                    credentials[key_of(each)] = each
                case Issuer():
                    issuers[key_of(each)] = each
                case ConfigMap():
                    config_maps[key_of(each)] = each
                case Bundle():
                    bundles[key_of(each)] = each
                case ClusterTrustBundle():
                    cluster_trust_bundles[key_of(each)] = each
        return replace(
            self,
            secrets=secrets,
            credentials=credentials,
            issuers=issuers,
            config_maps=config_maps,
            bundles=bundles,
            cluster_trust_bundles=cluster_trust_bundles,
        )

    def internal_of(self, owner: Resource) -> tuple[Secret, ...]:
        """The Secrets of the release namespace that carry the UID of `owner`."""
        return tuple(
            each
            for (namespace, _), each in self.secrets.items()
            if namespace == self.settings.namespace and each.metadata.labels.get(OWNER_UID) == owner.metadata.uid
        )


def is_managed(object_: Resource) -> bool:
    """Whether the object carries our label."""
    return object_.metadata.labels.get(MANAGED_BY) == MANAGER


def is_owned_by(object_: Resource, owner: Resource) -> bool:
    """Whether `owner` is among the owner references of the object."""
    return any(each.uid == owner.metadata.uid for each in object_.metadata.owner_references)


def belongs_to(object_: Resource, owner: Resource) -> bool:
    """Whether the object carries our label and the UID of `owner`; references do not cross namespaces."""
    return is_managed(object_) and object_.metadata.labels.get(OWNER_UID) == owner.metadata.uid


def describe_owner(object_: Resource) -> str:
    """Of an object that is not ours to write, in words: to whom it belongs."""
    owner = object_.metadata.annotations.get(OWNER) if is_managed(object_) else None
    return f"belongs to {owner[:SHOWN]}" if owner else "exists and was not made by the operator"
