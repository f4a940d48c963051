"""Shares of what all namespaces share: places for keys on a profile, and for Secrets in the release namespace.

Users who may write CertificateAuthorities or EABCredentials make the operator create Secrets in the release namespace,
which server and operator keep in memory. What has its Secret keeps it, even if a limit is lowered.
"""

from __future__ import annotations

from kms.contract import READY
from kms.resources.credentials import EABCredential
from kms.resources.kinds import PROFILES
from kms.resources.meta import condition
from kms.resources.profiles import AcmeEnrollment, CertificateProfile
from kms.resources.retained import PROFILE_LIMIT_REACHED
from kms.shares import HALF, share_of
from kms_operator.indexes import IN_FORCE
from kms_operator.snapshot import Snapshot


def secret_limit_reached(namespace: str, snapshot: Snapshot) -> str | None:
    """Why resources of the namespace get no further Secret in the release namespace; None if they do.

    A namespace gets half of what the others leave, so that none takes all, and at most its own maximum. Keys that are
    kept for deleted resources count: they take as much room.
    """
    settings, count = snapshot.settings, snapshot.index.internal_secrets
    own, used = count(settings.namespace, namespace), count(settings.namespace)
    kept = (
        "keys of deleted ones count for as long as they are kept (--deletion-retention, in the chart deletionRetention)"
    )
    if own >= (maximum := settings.maximum_secrets_per_namespace):
        return (
            f"namespace {namespace} has {maximum} keys of CertificateAuthorities and EABCredentials, the maximum"
            " (--maximum-secrets-per-namespace, in the chart operator.maximumSecretsPerNamespace); have it raised, or"
            f" delete some that are no longer used and have their keys purged: {kept}"
        )
    if used >= (maximum := settings.maximum_secrets):
        return (
            f"all namespaces together have {maximum} keys of CertificateAuthorities and EABCredentials, the maximum"
            " (--maximum-secrets, in the chart operator.maximumSecrets); have it raised, or delete some that are no"
            f" longer used and have their keys purged: {kept}"
        )
    if own >= share_of(maximum, used - own, HALF):
        return (
            f"namespace {namespace} has its share of the keys of CertificateAuthorities and EABCredentials, {own} of"
            f" {maximum} (--maximum-secrets, in the chart operator.maximumSecrets); have it raised, or delete some that"
            f" are no longer used and have their keys purged: {kept}"
        )
    return None


def profile_limit_reached(profile: CertificateProfile, snapshot: Snapshot) -> str | None:
    """Why the profile cannot be used; None if it can. Profiles that were in force before stay so."""
    namespace = profile.metadata.namespace
    ready = condition(profile.status.conditions, READY)
    if ready is not None and ready.reason != PROFILE_LIMIT_REACHED:
        return None
    maximum = snapshot.settings.maximum_profiles_per_namespace
    if snapshot.index.count(PROFILES, IN_FORCE, namespace) < maximum:
        return None
    return (
        f"namespace {namespace} has {maximum} CertificateProfiles, the maximum (--maximum-profiles-per-namespace, in"
        " the chart operator.maximumProfilesPerNamespace); delete some that are no longer used, or have the limit"
        " raised"
    )


def credential_limit_reached(credential: EABCredential, acme: AcmeEnrollment, snapshot: Snapshot) -> str | None:
    """Why the profile takes no further credential; None if it does.

    A namespace gets half of the places that the others leave, so that none takes all; that of the profile gets any.
    """
    (namespace, name), home = credential.profile_key, credential.metadata.namespace
    maximum, others = acme.maximum_credentials, snapshot.index.other_holders(credential)
    own = snapshot.index.other_holders(credential, namespace=home)
    is_full, share = others >= maximum, share_of(maximum, others - own, HALF)
    if not is_full and home != namespace and own >= share:
        return (
            f"namespace {home} has its share of the places on CertificateProfile {namespace}/{name}, {own} of {maximum}"
            " (spec.enrollment.acme.maximumCredentials); delete some that are no longer used, or have the limit raised"
        )
    if not is_full:
        return None
    return (
        f"CertificateProfile {namespace}/{name} has {acme.maximum_credentials} EABCredentials, the maximum"
        " (spec.enrollment.acme.maximumCredentials); delete some that are no longer used, or have the limit raised"
    )
