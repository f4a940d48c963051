"""The server's copies of keys for external account binding, in the release namespace."""

from __future__ import annotations

from kms.resources.core import Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import CREDENTIALS, SECRETS
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import COMPONENT, OWNER_UID, VERIFICATION_KEY, verification_key_name
from kms_operator.indexes import UID
from kms_operator.objects import internal_secret
from kms_operator.reconcilers.eab_keys import BindingKey, InvalidKey, key_in
from kms_operator.reconcilers.kept_keys import is_kept_for_another, predecessors
from kms_operator.snapshot import Snapshot


def kept_key(credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot) -> BindingKey | None:
    """Return the key of a deleted credential of this namespace and name on the profile; None if there is none."""
    for copy in predecessors(credential, CREDENTIALS, VERIFICATION_KEY, snapshot):
        key = parse_key(copy)
        if key is not None and copy.metadata.name == copy_name(key, profile):
            return key
    return None


def is_claimed_by_another(
    key: BindingKey, credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot
) -> bool:
    """Whether the copy belongs to another credential: a later one must not void its key.

    That holds also while it is kept for a credential that was deleted, unless it was one of the same name.
    """
    copy = copy_of(key, profile, snapshot)
    if copy is None:
        return False
    holder = copy.metadata.labels.get(OWNER_UID)
    if holder is None or holder == credential.metadata.uid:
        return False
    exists = snapshot.by_index(CREDENTIALS, UID, holder) or snapshot.index.is_unreadable(CREDENTIALS, holder)
    return bool(exists) or is_kept_for_another(copy, credential, CREDENTIALS)


def verification_copy(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> Secret:
    """Build the server's copy, in the release namespace."""
    return internal_secret(
        snapshot.settings.namespace,
        copy_name(key, profile),
        component=VERIFICATION_KEY,
        owner=credential,
        kind=CREDENTIALS,
        data=key.data,
    )


def copies_of(credential: EABCredential, snapshot: Snapshot) -> tuple[Secret, ...]:
    """Return the server's copies that belong to the credential."""
    return tuple(
        each
        for each in snapshot.owned_by(SECRETS, credential)
        if each.metadata.namespace == snapshot.settings.namespace
        and each.metadata.labels.get(COMPONENT) == VERIFICATION_KEY
    )


def copy_of(key: BindingKey, profile: CertificateProfile, snapshot: Snapshot) -> Secret | None:
    """Return the server's copy for the key identifier, which may belong to another credential; None: there is none."""
    return snapshot.internal_secret(copy_name(key, profile))


def copy_name(key: BindingKey, profile: CertificateProfile) -> str:
    """Return the name of the server's copy."""
    return verification_key_name(profile.metadata.namespace, profile.metadata.name, key.key_id)


def parse_key(secret: Secret) -> BindingKey | None:
    """Return the key that the Secret holds; None if it holds none that can be used."""
    try:
        return key_in(secret)
    except InvalidKey:
        return None
