"""What to reconcile after a change."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, NamedTuple

from kms.contract import NOTIFICATIONS
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.certmanager import Issuer
from kms.resources.core import ConfigMap, Namespace, Secret
from kms.resources.credentials import EABCredential
from kms.resources.kept import kept_until, parse_served_profiles, profile_digest
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
    SECRETS,
    Kind,
)
from kms.resources.meta import Key, Resource, Unreadable, condition, key_of
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms.resources.retained import CREDENTIAL_LIMIT_REACHED, PROFILE_LIMIT_REACHED, SECRET_LIMIT_REACHED
from kms.resources.secret_names import (
    COMPONENT,
    NONCE_KEY,
    OWNER,
    OWNER_UID,
    SERVING_AUTHORITY,
    SERVING_CERTIFICATE,
    SIGNING_KEY,
    profile_of_directory,
)
from kms.resources.trust import Bundle, ClusterTrustBundle
from kms_operator import indexes
from kms_operator.indexes import AccountSummary, ObjectIndex
from kms_operator.kinds import RECONCILED_KINDS

_TRUSTED = frozenset({SERVING_AUTHORITY, SERVING_CERTIFICATE})
_OF_INSTALLATION = _TRUSTED | {NONCE_KEY}

ACCOUNTS_DELAY = 1.0
"""Seconds in which new accounts of one credential are counted together: a burst of them costs one status write."""

WOKEN = 10
"""Resources of one kind that one release lets try again."""


class ReconcileRequest(NamedTuple):
    """The name of a reconciler and the resource to reconcile, if it has one. The key of the work queue."""

    reconciler: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        """For logs: `trust/pki/issuing`."""
        return "/".join(filter(None, self))


INSTALLATION = ReconcileRequest("installation")
ORPHANS = ReconcileRequest("orphans")
TRUST = "trust"
"""The reconciler that publishes the root of a CertificateAuthority; others are named by the plural of their kind."""
NOTIFICATIONS_OF = {PROFILES.plural: "notifications-of-profiles", AUTHORITIES.plural: "notifications-of-authorities"}
"""The reconcilers of receivers of notifications, by the plural of the kind of their owners."""


def namespace_of(request: ReconcileRequest) -> str:
    """Return the namespace of a request: namespaces take turns in the queue."""
    return request.namespace


def request_for(kind: Kind[Any], resource: Resource) -> ReconcileRequest:
    """Return the request to reconcile one resource."""
    return ReconcileRequest(kind.plural, *key_of(resource))


def trust_request_for(authority: Resource) -> ReconcileRequest:
    """Return the request to publish the root of a CertificateAuthority."""
    return ReconcileRequest(TRUST, *key_of(authority))


def notifications_request_for(kind: Kind[Any], owner: Resource) -> ReconcileRequest:
    """Return the request to look after the receiver of a CertificateProfile or CertificateAuthority."""
    return ReconcileRequest(NOTIFICATIONS_OF[kind.plural], *key_of(owner))


def orphans_request_for(owner: Resource | Unreadable) -> ReconcileRequest:
    """Return the request to delete what outlived one resource; the name is its UID."""
    return ReconcileRequest(ORPHANS.reconciler, owner.metadata.namespace, owner.metadata.uid)


def find_left(
    kind: Kind[Any], deleted: Resource | Unreadable, cache: ObjectIndex, *, release: str
) -> Iterator[ReconcileRequest]:
    """Return requests about keys that earlier owners of the same name have left: the time of those begins anew."""
    namespace, name = key_of(deleted)
    for each in cache.by_index(SECRETS, indexes.OWNER_NAME, f"{kind.kind} {namespace}/{name}"):
        uid, is_ours = each.metadata.labels.get(OWNER_UID), each.metadata.namespace == release
        if is_ours and uid and uid != deleted.metadata.uid and kept_until(each.metadata) is not None:
            yield ReconcileRequest(ORPHANS.reconciler, namespace, uid)


def find_affected(
    kind: Kind[Any], changed: Resource | Unreadable, cache: ObjectIndex, *, release: str
) -> Iterator[tuple[ReconcileRequest, float]]:
    """Return what to reconcile after `changed` was created, changed or deleted, and in how many seconds.

    Only Secrets of the namespace `release` concern all resources: tenants can label theirs as they like.
    """
    if kind in RECONCILED_KINDS:
        yield request_for(kind, changed), 0.0
    if isinstance(changed, Unreadable):
        yield from ((request, 0.0) for request in _find_referring(kind, key_of(changed), cache))
        return
    match changed:
        case ACMEAccount() | AccountSummary():
            credential = changed.credential
            if credential is not None and cache.get(CREDENTIALS, credential) is not None:
                yield ReconcileRequest(CREDENTIALS.plural, *credential), ACCOUNTS_DELAY
        case _:
            yield from ((request, 0.0) for request in _find_affected_at_once(changed, cache, release))


def find_waiting(deleted: Resource, cache: ObjectIndex) -> Iterator[ReconcileRequest]:
    """Return resources that wait for what a deleted Secret, EABCredential or CertificateProfile has released.

    Only a few: more than one place is seldom released, and every ten minutes all are reconciled.
    """
    waits: list[tuple[str, Hashable]] = []
    if isinstance(deleted, EABCredential):
        waits = [(CREDENTIAL_LIMIT_REACHED, deleted.profile_key)]
    elif isinstance(deleted, Secret) and (namespace := indexes.owner_namespace(deleted)):
        waits = [(SECRET_LIMIT_REACHED, namespace), (SECRET_LIMIT_REACHED, "")]
        owners = cache.by_index(CREDENTIALS, indexes.UID, deleted.metadata.labels.get(OWNER_UID))
        waits += [(CREDENTIAL_LIMIT_REACHED, each.profile_key) for each in owners]
    elif isinstance(deleted, CertificateProfile):
        waits = [(PROFILE_LIMIT_REACHED, deleted.metadata.namespace)]
    for kind in (AUTHORITIES, PROFILES, CREDENTIALS):
        for each in waits:
            yield from _each(kind, cache.first_waiting(kind, each, WOKEN))


def requests_for_cert_manager(cache: ObjectIndex) -> Iterator[ReconcileRequest]:
    """Return the profiles that ask for issuers of cert-manager."""
    return _each(PROFILES, (each for each in cache.all(PROFILES).values() if each.cert_manager is not None))


def requests_for_trust(cache: ObjectIndex) -> Iterator[ReconcileRequest]:
    """Return the CertificateAuthorities that ask for their root to be published."""
    return (trust_request_for(each) for each in cache.all(AUTHORITIES).values() if each.spec.trust is not None)


def is_requested(kind: Kind[Any], cache: ObjectIndex) -> bool:
    """Whether a profile or a CertificateAuthority asks for objects of this optional kind."""
    return any(kind.plural in _requested_by_profile(each) for each in cache.all(PROFILES).values()) or any(
        kind.plural in _requested_by_authority(each) for each in cache.all(AUTHORITIES).values()
    )


def _requested_by_profile(profile: CertificateProfile) -> set[str]:
    section = profile.cert_manager
    if section is None:
        return set()
    fields: dict[Kind[Any], object] = {CLUSTER_ISSUERS: section.cluster_issuer, ISSUERS: section.issuers}
    return {kind.plural for kind, field in fields.items() if field is not None}


def _requested_by_authority(authority: CertificateAuthority) -> set[str]:
    trust = authority.spec.trust
    if trust is None:
        return set()
    fields: dict[Kind[Any], object] = {
        CONFIG_MAPS: trust.config_map,
        BUNDLES: trust.bundle,
        CLUSTER_TRUST_BUNDLES[0]: trust.cluster_trust_bundle,
    }
    return {kind.plural for kind, field in fields.items() if field is not None}


def _find_affected_at_once(changed: Resource, cache: ObjectIndex, release: str) -> Iterator[ReconcileRequest]:
    match changed:
        case CertificateAuthority():
            yield trust_request_for(changed)
            yield from _notifications_of(AUTHORITIES, changed)
            yield from _find_referring(AUTHORITIES, key_of(changed), cache)
        case CertificatePolicy():
            yield from _find_referring(POLICIES, key_of(changed), cache)
        case CertificateProfile():
            yield from _notifications_of(PROFILES, changed)
            policy = cache.get(POLICIES, (changed.metadata.namespace, changed.spec.policy_ref.name))
            yield from _each(POLICIES, () if policy is None else (policy,))
            # The CA keeps in mind how long certificates last, in case it is deleted.
            yield from _each(AUTHORITIES, _issuer_of(changed, cache))
            # Those that it has left record that.
            yield from _each(AUTHORITIES, _former_issuers_of(changed, cache, release))
            yield from _find_referring(PROFILES, key_of(changed), cache)
        case EABCredential():
            yield from _each(CREDENTIALS, _waiting_for_key_id(changed, cache))
            yield from _each(PROFILES, cache.by_index(PROFILES, indexes.UID, changed.metadata.labels.get(OWNER_UID)))
        case Namespace():
            yield from _each(CREDENTIALS, cache.by_index(CREDENTIALS, indexes.NAMESPACE, changed.metadata.name))
            yield from _each(PROFILES, _with_issuers_elsewhere(cache))
            yield from requests_for_trust(cache)
        case Issuer() | ConfigMap() | Bundle() | ClusterTrustBundle():
            uid = changed.metadata.labels.get(OWNER_UID)
            yield from _each(PROFILES, cache.by_index(PROFILES, indexes.UID, uid))
            yield from map(trust_request_for, cache.by_index(AUTHORITIES, indexes.UID, uid))
        case Secret():
            yield from _find_affected_by_secret(changed, cache, release)


def _notifications_of(kind: Kind[Any], owner: CertificateProfile | CertificateAuthority) -> Iterator[ReconcileRequest]:
    if owner.spec.notifications is not None or condition(owner.status.conditions, NOTIFICATIONS) is not None:
        yield notifications_request_for(kind, owner)


def _find_referring(kind: Kind[Any], key: Key, cache: ObjectIndex) -> Iterator[ReconcileRequest]:
    """Return the resources that refer to the object by name; it may be missing or unreadable."""
    if kind is AUTHORITIES:
        yield from _each(AUTHORITIES, cache.by_index(AUTHORITIES, indexes.ISSUER, key))
        yield from _each(PROFILES, cache.by_index(PROFILES, indexes.ISSUER, key))
    elif kind is POLICIES:
        profiles = cache.by_index(PROFILES, indexes.POLICY, key)
        yield from _each(PROFILES, profiles)
        for each in profiles:
            yield from _each(PROFILES, cache.by_index(PROFILES, indexes.ORDER_PROFILE, key_of(each)))
            credentials = cache.by_index(CREDENTIALS, indexes.PROFILE, key_of(each))
            # They say which of their names, and of those that the profile gives them, the policy does not allow.
            narrows = _narrows(each)
            yield from _each(CREDENTIALS, (one for one in credentials if narrows or one.spec.names is not None))
    elif kind is PROFILES:
        yield from _each(PROFILES, cache.by_index(PROFILES, indexes.ORDER_PROFILE, key))
        yield from _each(CREDENTIALS, cache.by_index(CREDENTIALS, indexes.PROFILE, key))


def _narrows(profile: CertificateProfile) -> bool:
    """Whether the profile says which names its clients may have, beside its policy."""
    acme = profile.spec.enrollment.acme
    rule = acme.allowed_namespaces if acme is not None else None
    return rule is not None and (rule.names is not None or any(each.names is not None for each in rule.settings))


def _find_affected_by_secret(secret: Secret, cache: ObjectIndex, release: str) -> Iterator[ReconcileRequest]:
    owners = {each.uid for each in secret.metadata.owner_references} | {secret.metadata.labels.get(OWNER_UID)}
    for kind in RECONCILED_KINDS:
        for uid in owners:
            yield from _each(kind, cache.by_index(kind, indexes.UID, uid))
    yield from _each(CREDENTIALS, cache.by_index(CREDENTIALS, indexes.SECRET, key_of(secret)))
    # By its name: a profile that was made again waits until the Secret of the deleted one is gone.
    name = profile_of_directory(secret.metadata.name)
    if name is not None and (profile := cache.get(PROFILES, (secret.metadata.namespace, name))) is not None:
        yield request_for(PROFILES, profile)
    # By its name: a key that was restored from a backup may have lost its labels.
    yield from _each(AUTHORITIES, cache.by_index(AUTHORITIES, indexes.SIGNING_SECRET, secret.metadata.name))
    component = secret.metadata.labels.get(COMPONENT) if secret.metadata.namespace == release else None
    if component == SIGNING_KEY:
        yield from _find_affected_by_key(secret, cache)
    if component in _TRUSTED:
        # Both kinds of resources tell clients what to trust.
        yield from _each(PROFILES, cache.all(PROFILES).values())
        yield from _each(CREDENTIALS, cache.all(CREDENTIALS).values())
    if component in _OF_INSTALLATION:
        yield INSTALLATION


def _issuer_of(profile: CertificateProfile, cache: ObjectIndex) -> Iterator[CertificateAuthority]:
    found = cache.get(AUTHORITIES, (profile.metadata.namespace, profile.spec.issuer_ref.name))
    if found is not None:
        yield found


def _former_issuers_of(profile: CertificateProfile, cache: ObjectIndex, release: str) -> Iterator[CertificateAuthority]:
    digest = profile_digest(key_of(profile))
    for secret in cache.by_index(SECRETS, indexes.SERVED, digest):
        if secret.metadata.namespace == release and parse_served_profiles(secret.metadata).get(digest) is None:
            yield from cache.by_index(AUTHORITIES, indexes.UID, secret.metadata.labels.get(OWNER_UID))


def _find_affected_by_key(secret: Secret, cache: ObjectIndex) -> Iterator[ReconcileRequest]:
    """Return the CA and the profiles that the Secret names: the CA may have been deleted, or created again."""
    kind, _, path = secret.metadata.annotations.get(OWNER, "").partition(" ")
    namespace, _, name = path.partition("/")
    if kind != AUTHORITIES.kind:
        return
    yield from _each(PROFILES, cache.by_index(PROFILES, indexes.ISSUER, (namespace, name)))
    if (authority := cache.get(AUTHORITIES, (namespace, name))) is not None:
        yield request_for(AUTHORITIES, authority)


def _each(kind: Kind[Any], resources: Iterable[Resource]) -> Iterator[ReconcileRequest]:
    return (request_for(kind, each) for each in resources)


def _waiting_for_key_id(credential: EABCredential, cache: ObjectIndex) -> Iterator[EABCredential]:
    """Return the credentials that wait for a key identifier on the same profile."""
    waiting = cache.by_index(CREDENTIALS, indexes.WAITING, (indexes.KEY_ID_IN_USE, credential.profile_key))
    return (each for each in waiting if each.metadata.uid != credential.metadata.uid)


def _with_issuers_elsewhere(cache: ObjectIndex) -> Iterator[CertificateProfile]:
    """Return the profiles whose Issuers depend on the labels of namespaces."""
    for each in cache.all(PROFILES).values():
        section = each.cert_manager
        if section is not None and section.issuers is not None and section.issuers.namespaces.from_ != "Same":
            yield each
