"""What the operator writes, as it should be. Names, labels and keys come from `kms.resources.secret_names`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from kms.resources.core import Secret
from kms.resources.kinds import Kind
from kms.resources.meta import GROUP, ObjectMeta, OwnerReference, Resource
from kms.resources.secret_names import COMPONENT, MANAGED_BY, MANAGER, OWNER, OWNER_UID

TLS = "kubernetes.io/tls"
OPAQUE = "Opaque"

DIGEST = f"{GROUP}/spec-digest"
"""Annotation of an object of somebody else's kind: what we asked for. The object itself may have defaults in it."""


def shared_secret(
    namespace: str, name: str, *, component: str, data: Mapping[str, bytes], type_: str = OPAQUE
) -> Secret:
    """A Secret of the release namespace that belongs to the installation."""
    labels = {MANAGED_BY: MANAGER, COMPONENT: component}
    return Secret(metadata=ObjectMeta(namespace=namespace, name=name, labels=labels), data=dict(data), type=type_)


def internal_secret(
    namespace: str,
    name: str,
    *,
    component: str,
    owner: Resource,
    kind: Kind[Any],
    data: Mapping[str, bytes],
    annotations: Mapping[str, str] | None = None,
) -> Secret:
    """A Secret of the release namespace that belongs to a resource elsewhere.

    Owner references do not cross namespaces (the garbage collector would take the Secret for an orphan), so labels say
    whose it is and `kms_operator.reconcilers.orphans` removes it after its owner.
    """
    metadata = ObjectMeta(
        namespace=namespace,
        name=name,
        labels={MANAGED_BY: MANAGER, COMPONENT: component, OWNER_UID: owner.metadata.uid},
        annotations={OWNER: display_name(owner, kind), **(annotations or {})},
    )
    return Secret(metadata=metadata, data=dict(data))


def user_secret(name: str, *, component: str, owner: Resource, kind: Kind[Any], data: Mapping[str, bytes]) -> Secret:
    """A Secret for people, beside `owner` and deleted with it by the garbage collector."""
    metadata = ObjectMeta(
        namespace=owner.metadata.namespace,
        name=name,
        labels={MANAGED_BY: MANAGER, COMPONENT: component},
        owner_references=(reference_to(owner, kind),),
    )
    return Secret(metadata=metadata, data=dict(data))


def reference_to(owner: Resource, kind: Kind[Any]) -> OwnerReference:
    """What makes the garbage collector delete an object of the same namespace with `owner`."""
    return OwnerReference(
        api_version=kind.api_version,
        kind=kind.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
    )


def display_name(resource: Resource, kind: Kind[Any]) -> str:
    """The resource as people write it: `CertificateAuthority pki/issuing`."""
    return f"{kind.kind} {resource.metadata.namespace}/{resource.metadata.name}"


def digest(content: Mapping[str, Any]) -> str:
    """What was asked for, as the annotation DIGEST says it."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def same_metadata(existing: Resource, wanted: Resource) -> bool:
    """Whether labels and annotations are as we want them; additions do not count."""
    return (
        existing.metadata.labels.items() >= wanted.metadata.labels.items()
        and existing.metadata.annotations.items() >= wanted.metadata.annotations.items()
    )


def contains(existing: Any, wanted: Any) -> bool:
    """Whether all that we want is there; defaults and additions do not count."""
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(
            key in existing and contains(existing[key], wanted[key]) for key in wanted
        )
    if isinstance(wanted, list):
        return isinstance(existing, list) and len(existing) == len(wanted) and all(map(contains, existing, wanted))
    return bool(existing == wanted)


def over(wanted: Any, existing: Resource | None) -> Any:
    """`wanted`, to be written only over `existing`; None where nothing is yet."""
    if existing is None:
        return wanted
    version = existing.metadata.resource_version
    return msgspec.structs.replace(wanted, metadata=msgspec.structs.replace(wanted.metadata, resource_version=version))
