"""Objects that the operator writes: how they are built, compared and recognized.

Names, labels and keys come from `kms.resources.secret_names`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from kms.pki.ca import InvalidAuthority, load_remote_signer, load_signer
from kms.pki.certificate import Signer
from kms.resources.core import Secret
from kms.resources.kept import DELETED_AT, KEPT_UNTIL
from kms.resources.kinds import SECRETS, Kind
from kms.resources.meta import ObjectMeta, OwnerReference, Resource
from kms.resources.secret_names import (
    COMPONENT,
    KEY_STORE,
    MANAGED_BY,
    MANAGER,
    OWNER,
    OWNER_UID,
    TLS_CERTIFICATE,
    TLS_PRIVATE_KEY,
)
from kms_operator.plan import QUOTED, Manifest

TLS = "kubernetes.io/tls"
OPAQUE = "Opaque"


def shared_secret(
    namespace: str, name: str, *, component: str, data: Mapping[str, bytes], type_: str = OPAQUE
) -> Secret:
    """Build a Secret of the release namespace that belongs to the installation."""
    labels = {MANAGED_BY: MANAGER, COMPONENT: component}
    return Secret(metadata=ObjectMeta(namespace=namespace, name=name, labels=labels), data=dict(data), type=type_)


def owned_metadata(
    namespace: str,
    name: str,
    *,
    component: str,
    owner: Resource,
    kind: Kind[Any],
    annotations: Mapping[str, str] | None = None,
    owner_references: tuple[OwnerReference, ...] = (),
) -> ObjectMeta:
    """Build metadata of an object that belongs to a resource of another namespace.

    Owner references do not cross namespaces (the garbage collector would take the object for an orphan), so labels name
    the owner, and `kms_operator.reconcilers.orphans` deletes the object after its owner.
    """
    return ObjectMeta(
        namespace=namespace,
        name=name,
        labels={MANAGED_BY: MANAGER, COMPONENT: component, OWNER_UID: owner.metadata.uid},
        annotations={OWNER: display_name(owner, kind), **(annotations or {})},
        owner_references=owner_references,
    )


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
    """Build a Secret that belongs to a resource of another namespace."""
    metadata = owned_metadata(namespace, name, component=component, owner=owner, kind=kind, annotations=annotations)
    return Secret(metadata=metadata, data=dict(data))


def user_secret(name: str, *, component: str, owner: Resource, kind: Kind[Any], data: Mapping[str, bytes]) -> Secret:
    """Build a Secret for users, in the namespace of `owner` and deleted with it by the garbage collector."""
    metadata = ObjectMeta(
        namespace=owner.metadata.namespace,
        name=name,
        labels={MANAGED_BY: MANAGER, COMPONENT: component},
        owner_references=(reference_to(owner, kind),),
    )
    return Secret(metadata=metadata, data=dict(data))


def reference_to(owner: Resource, kind: Kind[Any]) -> OwnerReference:
    """Build the owner reference by which the garbage collector deletes an object with `owner`."""
    return OwnerReference(
        api_version=kind.api_version,
        kind=kind.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
    )


def display_name(resource: Resource, kind: Kind[Any]) -> str:
    """Name the resource for people: `CertificateAuthority pki/issuing`, `Bundle example`."""
    return f"{kind.kind} {'/'.join(filter(None, (resource.metadata.namespace, resource.metadata.name)))}"


def digest(content: Mapping[str, Any]) -> str:
    """Return the value of the annotation DIGEST."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def is_managed(object_: Resource) -> bool:
    """Whether the object has the operator's label."""
    return object_.metadata.labels.get(MANAGED_BY) == MANAGER


def is_owned_by(object_: Resource, owner: Resource) -> bool:
    """Whether `owner` is among the owner references of the object."""
    return any(each.uid == owner.metadata.uid for each in object_.metadata.owner_references)


def belongs_to(object_: Resource, owner: Resource) -> bool:
    """Whether the object has the operator's label and the UID of `owner`, which may be in another namespace."""
    return is_managed(object_) and object_.metadata.labels.get(OWNER_UID) == owner.metadata.uid


def describe_owner(object_: Resource) -> str:
    """Describe the owner of an object that the operator must not write."""
    owner = object_.metadata.annotations.get(OWNER) if is_managed(object_) else None
    return f"belongs to {owner[:QUOTED]}" if owner else "exists and was not made by the operator"


def has_metadata_of(existing: Resource, wanted: Resource) -> bool:
    """Whether `existing` has the labels and annotations of `wanted`; it may have more."""
    return (
        existing.metadata.labels.items() >= wanted.metadata.labels.items()
        and existing.metadata.annotations.items() >= wanted.metadata.annotations.items()
    )


def contains(existing: Any, wanted: Any) -> bool:
    """Whether `existing` has all values of `wanted`; it may have more, such as defaults."""
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(
            key in existing and contains(existing[key], wanted[key]) for key in wanted
        )
    if isinstance(wanted, list):
        return isinstance(existing, list) and len(existing) == len(wanted) and all(map(contains, existing, wanted))
    return bool(existing == wanted)


def over(wanted: Any, existing: Resource | None) -> Any:
    """Return `wanted` with the resourceVersion of `existing`: it then replaces that version only."""
    version = existing.metadata.resource_version if existing else ""
    return msgspec.structs.replace(wanted, metadata=msgspec.structs.replace(wanted.metadata, resource_version=version))


def secret_changes(existing: Secret | None, wanted: Secret) -> tuple[Manifest, ...]:
    """Return what to write so that the Secret has the wanted data, labels, annotations and owner; often nothing."""
    if existing is None:
        return (Manifest(SECRETS, over(wanted, None)),)
    owners = {each.uid for each in existing.metadata.owner_references}
    if existing.metadata.annotations.get(KEPT_UNTIL):
        # It was kept for a deleted owner and has one again. Another manager may own the annotations, after a restore,
        # so they are emptied: apply would not remove them.
        ended = {**wanted.metadata.annotations, DELETED_AT: "", KEPT_UNTIL: ""}
        wanted = msgspec.structs.replace(wanted, metadata=msgspec.structs.replace(wanted.metadata, annotations=ended))
    if (
        existing.data.items() >= wanted.data.items()
        and has_metadata_of(existing, wanted)
        and owners >= {each.uid for each in wanted.metadata.owner_references}
    ):
        return ()
    # The type of a Secret is immutable.
    return (Manifest(SECRETS, msgspec.structs.replace(over(wanted, existing), type=existing.type)),)


def signer_in(secret: Secret | None) -> Signer | None:
    """Return the certificate and key that the Secret holds; None if it does not hold a pair that can be read.

    A key in a key store is one that is only compared.
    """
    if secret is None:
        return None
    try:
        if KEY_STORE in secret.data:
            return load_remote_signer(secret.data.get(TLS_CERTIFICATE, b""))
        return load_signer(secret.data.get(TLS_CERTIFICATE, b""), secret.data.get(TLS_PRIVATE_KEY, b""))
    except InvalidAuthority:
        return None
