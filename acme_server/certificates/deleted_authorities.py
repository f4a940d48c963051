"""CAs that were deleted while certificates of them are valid: the operator keeps their keys, and lists go on."""

from __future__ import annotations

from collections.abc import Hashable

from cryptography import x509

from kms.cluster.informer import Informer
from kms.pki.ca import subject_key_id
from kms.pki.certificate import certificate_pem
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority
from kms.resources.core import Secret
from kms.resources.kept import deleted_at, parse_former_keys
from kms.resources.kinds import AUTHORITIES
from kms.resources.meta import ObjectMeta
from kms.resources.secret_names import OWNER, OWNER_UID, TLS_CERTIFICATE, signing_key_name

OWNER_INDEX = "owner"
"""The index of the Secrets' informer that finds a Secret by the owner that its annotation names.

A signing key is also found by owner and identifier of a key.
"""


def by_owner(secret: Secret) -> tuple[Hashable, ...]:
    """The entries of a Secret in OWNER_INDEX."""
    owner = secret.metadata.annotations.get(OWNER)
    if not owner:
        return ()
    authority = _authority(secret, "", "") if _is_signing_key(secret) else None
    return (owner, *((owner, key_id) for key_id in (authority.key_ids if authority is not None else ())))


def deleted_authority(
    secrets: Informer[Secret], namespace: str, name: str, key_id: str | None = None
) -> CertificateAuthority | None:
    """The CA of that name that was deleted last, as far as its signing key tells of it; None if none is kept.

    With `key_id`, the last one that has, or had, the key with that identifier.
    """
    owner = f"{AUTHORITIES.kind} {namespace}/{name}"
    found = secrets.by(OWNER_INDEX, owner if key_id is None else (owner, key_id))
    kept = (each for each in found if _is_signing_key(each))
    secret = max(kept, key=_since, default=None)
    return None if secret is None else _authority(secret, namespace, name)


def is_kept(secrets: Informer[Secret], namespace: str, name: str, key_id: str) -> bool:
    """Whether some CA of that name, be it deleted, has, or had, the key with that identifier."""
    return bool(secrets.by(OWNER_INDEX, (f"{AUTHORITIES.kind} {namespace}/{name}", key_id)))


def _is_signing_key(secret: Secret) -> bool:
    uid = secret.metadata.labels.get(OWNER_UID)
    return bool(uid) and secret.metadata.name == signing_key_name(uid or "")


def _since(secret: Secret) -> float:
    since = deleted_at(secret.metadata)
    return since.timestamp() if since is not None else float("inf")


def _authority(secret: Secret, namespace: str, name: str) -> CertificateAuthority | None:
    try:
        certificate = x509.load_pem_x509_certificates(secret.data.get(TLS_CERTIFICATE, b""))[0]
    except ValueError:
        return None
    return CertificateAuthority(
        metadata=ObjectMeta(namespace=namespace, name=name, uid=secret.metadata.labels[OWNER_UID]),
        spec=AuthoritySpec(),
        status=AuthorityStatus(
            certificate=certificate_pem(certificate),
            subject_key_id=subject_key_id(certificate),
            not_after=certificate.not_valid_after_utc,
            former_keys=tuple(parse_former_keys(secret.metadata)),
        ),
    )
