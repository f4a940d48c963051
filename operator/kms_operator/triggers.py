"""What needs a look when something has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kms.contract import READY
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.certmanager import Issuer
from kms.resources.core import ConfigMap, Namespace, Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import (
    AUTHORITIES,
    BUNDLES,
    CLUSTER_ISSUERS,
    CLUSTER_TRUST_BUNDLES,
    CONFIG_MAPS,
    CREDENTIALS,
    ISSUERS,
    POLICIES,
    PROFILES,
    Kind,
)
from kms.resources.meta import Resource, condition
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import (
    COMPONENT,
    CREDENTIAL_UID,
    NONCE_KEY,
    OWNER_UID,
    SERVING_AUTHORITY,
    SERVING_CERTIFICATE,
    signing_key_name,
)
from kms.resources.trust import Bundle, ClusterTrustBundle
from kms_operator.cache import AccountSummary, Cache
from kms_operator.reconcilers.eab_credential import KEY_ID_IN_USE

RECONCILED: tuple[Kind[Any], ...] = (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS)
"""The kinds that people write and that we answer to."""

_TRUSTED = frozenset({SERVING_AUTHORITY, SERVING_CERTIFICATE})
_OF_INSTALLATION = _TRUSTED | {NONCE_KEY}

ACCOUNTS_DELAY = 1.0
"""Seconds in which new accounts of one credential are counted together: one status write for a burst of them."""


class ReconcileRequest(NamedTuple):
    """One thing to reconcile; also what the work queue serialises by."""

    plural: str
    namespace: str = ""
    name: str = ""


INSTALLATION = ReconcileRequest("installation")
"""What belongs to no resource: nonce key, serving CA and serving certificate."""
ORPHANS = ReconcileRequest("sweep")
"""What has outlived its owner."""
TRUST = "trust"
"""The plural of targets that stand for where a CertificateAuthority is published."""


def request_for(kind: Kind[Any], resource: Resource) -> ReconcileRequest:
    """The target that stands for one resource."""
    return ReconcileRequest(kind.plural, resource.metadata.namespace, resource.metadata.name)


def trust_request_for(authority: Resource) -> ReconcileRequest:
    """The target that stands for where the root of a CertificateAuthority is published."""
    return ReconcileRequest(TRUST, authority.metadata.namespace, authority.metadata.name)


def affected(kind: Kind[Any], changed: Resource, cache: Cache) -> Iterator[tuple[ReconcileRequest, float]]:
    """What to look at now that `changed` has appeared, changed or gone, and in how many seconds."""
    if kind in RECONCILED:
        yield request_for(kind, changed), 0.0
    match changed:
        case CertificateAuthority():
            yield trust_request_for(changed), 0.0
            yield from _now(AUTHORITIES, _issued_by(changed, cache))
            yield from _now(PROFILES, _profiles_with(changed, cache))
        case CertificatePolicy():
            using = _profiles_with(changed, cache)
            yield from _now(PROFILES, using)
            yield from _now(PROFILES, (lending for each in using for lending in _lending(each, cache)))
        case CertificateProfile():
            yield from _now(PROFILES, _lending(changed, cache))
            yield from _now(CREDENTIALS, _credentials_of(changed, cache))
        case EABCredential():
            yield from _now(CREDENTIALS, _rivals_of(changed, cache))
            yield from _now(PROFILES, _with_uid(changed.metadata.labels.get(OWNER_UID), cache))
        case Namespace():
            here = [each for each in _credentials(cache) if each.metadata.namespace == changed.metadata.name]
            yield from _now(CREDENTIALS, here)
            yield from _now(PROFILES, _issuing_elsewhere(cache))
            yield from publishing(cache)
        case Issuer() | ConfigMap() | Bundle() | ClusterTrustBundle():
            uid = changed.metadata.labels.get(OWNER_UID)
            yield from _now(PROFILES, _with_uid(uid, cache))
            yield from (
                (trust_request_for(each), 0.0) for each in cache.all(AUTHORITIES).values() if each.metadata.uid == uid
            )
        case ACMEAccount() | AccountSummary():
            uid = changed.metadata.labels.get(CREDENTIAL_UID)
            bound = [each for each in _credentials(cache) if each.metadata.uid == uid]
            yield from ((target, ACCOUNTS_DELAY) for target, _ in _now(CREDENTIALS, bound))
        case Secret():
            yield from _affected_by_secret(changed, cache)
        case _:
            return


def issuing(cache: Cache) -> Iterator[tuple[ReconcileRequest, float]]:
    """The profiles that ask for issuers of cert-manager's."""
    return _now(PROFILES, (each for each in cache.all(PROFILES).values() if each.cert_manager is not None))


def publishing(cache: Cache) -> Iterator[tuple[ReconcileRequest, float]]:
    """The CertificateAuthorities that ask for their root to be published."""
    return ((trust_request_for(each), 0.0) for each in cache.all(AUTHORITIES).values() if each.spec.trust is not None)


def are_asked_for(kind: Kind[Any], cache: Cache) -> bool:
    """Whether a profile or a CertificateAuthority asks for objects of this kind of others."""
    return any(kind.plural in _asked_of_profile(each) for each in cache.all(PROFILES).values()) or any(
        kind.plural in _asked_of_authority(each) for each in cache.all(AUTHORITIES).values()
    )


def _asked_of_profile(profile: CertificateProfile) -> set[str]:
    section = profile.cert_manager
    if section is None:
        return set()
    asked: dict[Kind[Any], object] = {CLUSTER_ISSUERS: section.cluster_issuer, ISSUERS: section.issuers}
    return {kind.plural for kind, field in asked.items() if field is not None}


def _asked_of_authority(authority: CertificateAuthority) -> set[str]:
    trust = authority.spec.trust
    if trust is None:
        return set()
    asked: dict[Kind[Any], object] = {
        CONFIG_MAPS: trust.config_map,
        BUNDLES: trust.bundle,
        CLUSTER_TRUST_BUNDLES[0]: trust.cluster_trust_bundle,
    }
    return {kind.plural for kind, field in asked.items() if field is not None}


def _affected_by_secret(secret: Secret, cache: Cache) -> Iterator[tuple[ReconcileRequest, float]]:
    owners = {each.uid for each in secret.metadata.owner_references} | {secret.metadata.labels.get(OWNER_UID)}
    for kind in RECONCILED:
        owned = [each for each in cache.all(kind).values() if each.metadata.uid in owners]
        yield from _now(kind, owned)
    yield from _now(CREDENTIALS, (each for each in _credentials(cache) if _names(each, secret)))
    yield from _now(AUTHORITIES, (each for each in cache.all(AUTHORITIES).values() if _is_key_of(secret, each)))
    component = secret.metadata.labels.get(COMPONENT)
    if component in _TRUSTED:
        # Both name what clients have to trust.
        yield from _now(PROFILES, cache.all(PROFILES).values())
        yield from _now(CREDENTIALS, _credentials(cache))
    if component in _OF_INSTALLATION:
        yield INSTALLATION, 0.0


def _now(kind: Kind[Any], resources: Iterable[Resource]) -> Iterator[tuple[ReconcileRequest, float]]:
    return ((request_for(kind, each), 0.0) for each in resources)


def _credentials(cache: Cache) -> list[EABCredential]:
    return list(cache.all(CREDENTIALS).values())


def _issued_by(authority: CertificateAuthority, cache: Cache) -> list[CertificateAuthority]:
    return [
        each
        for each in cache.all(AUTHORITIES).values()
        if each.spec.internal is not None
        and each.spec.internal.issuer_ref is not None
        and (each.metadata.namespace, each.spec.internal.issuer_ref.name)
        == (authority.metadata.namespace, authority.metadata.name)
    ]


def _profiles_with(used: CertificateAuthority | CertificatePolicy, cache: Cache) -> list[CertificateProfile]:
    return [
        each
        for each in cache.all(PROFILES).values()
        if each.metadata.namespace == used.metadata.namespace
        and used.metadata.name
        == (each.spec.issuer_ref.name if isinstance(used, CertificateAuthority) else each.spec.policy_ref.name)
    ]


def _lending(lent: CertificateProfile, cache: Cache) -> list[CertificateProfile]:
    """The profiles whose directories offer this one."""
    return [
        each
        for each in cache.all(PROFILES).values()
        if each.metadata.namespace == lent.metadata.namespace
        and each.metadata.name != lent.metadata.name
        and each.spec.enrollment.acme is not None
        and any(entry.profile_ref.name == lent.metadata.name for entry in each.spec.enrollment.acme.profiles)
    ]


def _credentials_of(profile: CertificateProfile, cache: Cache) -> list[EABCredential]:
    key = (profile.metadata.namespace, profile.metadata.name)
    return [each for each in _credentials(cache) if each.profile_key == key]


def _rivals_of(credential: EABCredential, cache: Cache) -> list[EABCredential]:
    """Credentials that wait for a key identifier on the same profile."""
    return [
        each
        for each in _credentials(cache)
        if each.profile_key == credential.profile_key
        and each.metadata.uid != credential.metadata.uid
        and (found := condition(each.status.conditions, READY)) is not None
        and found.reason == KEY_ID_IN_USE
    ]


def _with_uid(uid: str | None, cache: Cache) -> list[CertificateProfile]:
    """The profile that an issuer, or what was made around it, belongs to."""
    return [each for each in cache.all(PROFILES).values() if each.metadata.uid == uid]


def _issuing_elsewhere(cache: Cache) -> list[CertificateProfile]:
    """The profiles whose Issuers go where labels of namespaces say."""
    return [
        each
        for each in cache.all(PROFILES).values()
        if (section := each.cert_manager) is not None
        and section.issuers is not None
        and section.issuers.namespaces.from_ != "Same"
    ]


def _is_key_of(secret: Secret, authority: CertificateAuthority) -> bool:
    """By its name: who restores a key from a backup may have lost its labels."""
    return secret.metadata.name == signing_key_name(authority.metadata.uid)


def _names(credential: EABCredential, secret: Secret) -> bool:
    return (credential.metadata.namespace, credential.secret_name) == (secret.metadata.namespace, secret.metadata.name)
