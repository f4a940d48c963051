"""What informers keep of an object: what the programs read, and no more than they need.

Tenants size what they write, and both programs hold all of it in memory. So labels and annotations of others are
dropped, and an object that is not in force is reduced to its identity and its status: a policy that no profile uses, a
profile or a credential beyond a limit. The operator decides, in the status, which tenants may not write. What is
reduced denies; when the operator puts it in force, the event for the new status brings the whole object.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from kms.resources.authorities import AuthoritySpec, CertificateAuthority
from kms.resources.certmanager import Issuer
from kms.resources.core import ConfigMap, EndpointSlice, Namespace, Secret
from kms.resources.credentials import EABCredential, NameRules
from kms.resources.kept import (
    DELETED_AT,
    FORMER_KEYS,
    FORMER_ROOT_CERTIFICATES,
    FORMER_ROOTS,
    KEPT_UNTIL,
    LONGEST_CERTIFICATE,
    SERVED_PROFILES,
)
from kms.resources.meta import ObjectMeta, Resource, condition
from kms.resources.policies import CertificatePolicy, DNSNameRules, PolicySpec, ValueRules
from kms.resources.profiles import AcmeEnrollment, CertificateProfile, Enrollment, ProfileSpec
from kms.resources.secret_names import COMPONENT, CREDENTIAL_UID, DIGEST, MANAGED_BY, OWNER, OWNER_UID
from kms.resources.trust import Bundle, ClusterTrustBundle

R = TypeVar("R", bound=Resource)

IN_USE = "InUse"
"""The condition of a CertificatePolicy that says whether a profile refers to it."""
CREDENTIAL_LIMIT_REACHED = "CredentialLimitReached"
PROFILE_LIMIT_REACHED = "ProfileLimitReached"
SECRET_LIMIT_REACHED = "SecretLimitReached"  # noqa: S105 - a reason
"""Reasons of Ready False beyond a limit."""
NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
"""The reason of Ready False of an external CA in a namespace that may have none."""
SOLVERS_TOO_LARGE: tuple[dict[str, Any], ...] = ({"tooLarge": {}},)
"""What is kept instead of solvers that are too large: they have no schema, so the API server does not limit them."""
FREE_FORM_OCTETS = 65_536
"""What is kept of an object without a schema of ours, and of the solvers of a profile."""

_READY = "Ready"
_LABELS = frozenset({MANAGED_BY, COMPONENT, OWNER_UID, CREDENTIAL_UID})
_ANNOTATIONS = frozenset(
    {OWNER, DIGEST, DELETED_AT, KEPT_UNTIL, LONGEST_CERTIFICATE, FORMER_ROOTS, FORMER_ROOT_CERTIFICATES}
)
"""The annotations that programs read, wherever the object is."""
_WHOLE = (FORMER_KEYS, SERVED_PROFILES)
_ANNOTATION_LENGTH = 1_024
"""How many characters of them are kept."""
_OWNERS = 16
_SECRET_OCTETS = 16_384
"""Data that is kept of a Secret outside of the release namespace; the operator's own have less."""
_NO_NAMES = NameRules(dns_names=DNSNameRules(), ip_addresses=ValueRules())


def retained(object_: R, *, release: str = "") -> R:
    """Return the object as it is kept; Secrets of the namespace `release` keep their data."""
    kept: Any = object_
    if _is_prunable(object_):
        kept = replace(kept, metadata=_pruned(object_, release))
    match kept:
        case CertificateAuthority() | CertificatePolicy() | CertificateProfile() | EABCredential():
            kept = _reduced(kept) if is_reduced(kept) else _without_large_solvers(kept)
        case Secret() if kept.metadata.namespace != release and _octets(kept.data.values()) > _SECRET_OCTETS:
            kept = replace(kept, data={})
        case ConfigMap() if _octets(kept.data.values()) > FREE_FORM_OCTETS:
            kept = replace(kept, data={})
        case Issuer() | Bundle() | ClusterTrustBundle() if len(msgspec.json.encode(kept.spec)) > FREE_FORM_OCTETS:
            kept = replace(kept, spec={})
    result: R = kept
    return result


def _reduced(resource: Any) -> Any:
    match resource:
        case CertificatePolicy():
            return replace(resource, spec=PolicySpec())
        case CertificateProfile():
            return replace(resource, spec=_reduced_profile(resource.spec))
        case CertificateAuthority():
            return replace(resource, spec=_reduced_authority(resource.spec))
        case EABCredential() if resource.spec.names is not None:
            return replace(resource, spec=replace(resource.spec, names=_NO_NAMES))
    return resource


def is_reduced(resource: CertificateAuthority | CertificatePolicy | CertificateProfile | EABCredential) -> bool:
    """Whether the operator has found that this version of the resource is not in force.

    For a CertificatePolicy: no profile uses it. For the others: they are beyond a limit, or, for an EABCredential, have
    neither key nor accounts, or, for a CertificateAuthority, may not be external. The rest of its spec then counts for
    nothing.
    """
    status = resource.status
    if status.observed_generation != resource.metadata.generation:
        return False
    if isinstance(resource, CertificatePolicy):
        used = condition(status.conditions, IN_USE)
        # The operator makes the text from the rules, so it needs them where an earlier version wrote the status.
        return used is not None and used.status == "False" and resource.status.dns_names is not None
    ready = condition(status.conditions, _READY)
    if ready is None or ready.status == "True":
        return False
    if isinstance(resource, EABCredential):
        return resource.status.key_id is None and not resource.status.accounts
    return ready.reason in {PROFILE_LIMIT_REACHED, SECRET_LIMIT_REACHED, NAMESPACE_NOT_ALLOWED}


def _pruned(object_: Resource, release: str) -> ObjectMeta:
    """Return the metadata without labels, annotations and owners that no program reads."""
    metadata = object_.metadata
    annotations = {
        key: value[:_ANNOTATION_LENGTH] for key, value in metadata.annotations.items() if key in _ANNOTATIONS
    }
    if isinstance(object_, Secret) and metadata.namespace == release:
        # Whole, however long they are: the operator writes the Secret again with what it knows of it.
        annotations |= {key: metadata.annotations[key] for key in _WHOLE if key in metadata.annotations}
    return replace(
        metadata,
        labels={key: value for key, value in metadata.labels.items() if key in _LABELS},
        annotations=annotations,
        owner_references=metadata.owner_references[:_OWNERS],
    )


def _is_prunable(object_: Resource) -> bool:
    """Labels of Namespaces are read, and those of EndpointSlices, which tenants do not write."""
    metadata = object_.metadata
    return not isinstance(object_, Namespace | EndpointSlice) and bool(
        metadata.labels or metadata.annotations or metadata.owner_references
    )


def _reduced_authority(spec: AuthoritySpec) -> AuthoritySpec:
    external = spec.external
    if external is not None:
        vault = replace(external.vault, ca_bundle=None) if external.vault is not None else None
        external = replace(external, trust_anchors=(), vault=vault)
    return replace(spec, cross_certificates=(), external=external)


def _reduced_profile(spec: ProfileSpec) -> ProfileSpec:
    enrolls = spec.enrollment.acme is not None
    return ProfileSpec(
        issuer_ref=spec.issuer_ref,
        policy_ref=spec.policy_ref,
        enrollment=Enrollment(acme=AcmeEnrollment()) if enrolls else Enrollment(),
    )


def _without_large_solvers(resource: Any) -> Any:
    section = resource.cert_manager if isinstance(resource, CertificateProfile) else None
    if section is None or len(msgspec.json.encode(section.solvers)) <= FREE_FORM_OCTETS:
        return resource
    small = replace(resource.spec.enrollment.acme, cert_manager=replace(section, solvers=SOLVERS_TOO_LARGE))
    return replace(resource, spec=replace(resource.spec, enrollment=Enrollment(acme=small)))


def _octets(values: Any) -> int:
    return sum(map(len, values))
