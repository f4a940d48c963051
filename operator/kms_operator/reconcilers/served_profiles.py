"""What proves the roots of a CA and of its profiles: the signing key, in a Secret that only the operator writes.

Statuses prove nothing, since others may be allowed to write them, and that of a profile ends with the profile. So the
Secret has the chain, the CA's former roots, and the profiles that have named the CA. An external CA that
publishes roots has a Secret with the first two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from kms.pki.ca import ReplacedRoot, chain_to_root_pem, root_pem
from kms.resources.authorities import CertificateAuthority, FormerRoot
from kms.resources.core import Secret
from kms.resources.kept import (
    FORMER_ROOT_CERTIFICATES,
    FORMER_ROOTS,
    SERVED_PROFILES,
    Departure,
    deleted_at,
    digest_of,
    format_former_roots,
    parse_former_roots,
    parse_served_profiles,
    profile_digest,
)
from kms.resources.kinds import AUTHORITIES, PROFILES, SECRETS
from kms.resources.meta import key_of
from kms.resources.profiles import CertificateProfile
from kms.resources.retained import is_reduced
from kms.resources.secret_names import CHAIN, OWNER_UID, TLS_CERTIFICATE, signing_key_name
from kms_operator.indexes import INTERNAL, ISSUER, SERVED, UID
from kms_operator.objects import is_managed, signer_in
from kms_operator.reconcilers.earlier_authorities import agrees
from kms_operator.snapshot import Snapshot

DEPARTED = 500
"""The most profiles that are remembered after they have left a CA; those that left first are forgotten."""


def served_profiles(
    authority: CertificateAuthority, secrets: Iterable[Secret], snapshot: Snapshot, *, now: datetime
) -> dict[str, Departure | None]:
    """Return the profiles that name the CA or have named it, by digest, for the annotation SERVED_PROFILES.

    `secrets` have been those of its key until now: its own, and those of deleted CAs whose key it has.
    """
    profiles = snapshot.by_index(PROFILES, ISSUER, key_of(authority))
    present = {profile_digest(key_of(each)) for each in profiles if not is_reduced(each)}
    departed: dict[str, Departure] = {}
    for secret in secrets:
        root = _root_in(secret) or ""
        known = _known_in(secret)
        for digest, left in (_known_before(authority, root, snapshot) if known is None else known).items():
            departed[digest] = left or Departure(deleted_at(secret.metadata) or now, digest_of(root))
    absent = [each for each in departed.items() if each[0] not in present]
    latest = sorted(absent, key=lambda each: each[1].at, reverse=True)[:DEPARTED]
    return {**dict(latest), **dict.fromkeys(present)}


def has_served(authority: CertificateAuthority, profile: CertificateProfile, snapshot: Snapshot) -> bool:
    """Whether the profile names the CA or has named it; True if the CA is not known to have recorded that."""
    secret = snapshot.internal_secret(signing_key_name(authority.metadata.uid))
    known = _known_in(secret) if secret is not None else None
    return known is None or profile_digest(key_of(profile)) in known


def proven_chain(authority: CertificateAuthority, snapshot: Snapshot) -> str | None:
    """Return the chain (PEM) of the CA; that of its Secret, if the status says another. None: it has none yet."""
    stated = authority.status.chain
    secret = snapshot.internal_secret(signing_key_name(authority.metadata.uid))
    if authority.spec.external is not None:
        return recorded_chain(secret) or stated
    if secret is None or stated is None or secret.data.get(TLS_CERTIFICATE) == stated.encode():
        return stated
    held, spec = signer_in(secret), authority.spec.internal
    # A Secret that was confused with another makes the CA unready, and nothing is published from it.
    genuine = held is not None and (spec is None or agrees(held, spec, None))
    return chain_to_root_pem(held) if held is not None and genuine else stated


def proven_former_roots(authority: CertificateAuthority, secret: Secret | None) -> list[ReplacedRoot]:
    """Return the former roots of the CA, the latest first: those that its Secret has, whatever the status says.

    A Secret of an old version has their digests only, or nothing: then those in the status count that it proves. An
    external CA without a Secret has none.
    """
    recorded = recorded_former_roots(secret)
    proven = secret.metadata.annotations.get(FORMER_ROOTS) if secret is not None else None
    if proven is None and authority.spec.external is not None:
        proven = ""
    known = {each.pem for each in recorded}
    stated = [
        ReplacedRoot(each.certificate, each.replaced_at)
        for each in authority.status.former_roots
        if each.certificate not in known and (proven is None or root_digest(each) in proven.split())
    ]
    return sorted((*recorded, *stated), key=lambda each: each.replaced_at, reverse=True)


def recorded_former_roots(secret: Secret | None) -> list[ReplacedRoot]:
    """Return the former roots that the Secret of a CA has."""
    found = parse_former_roots(secret.metadata) if secret is not None else ()
    return [ReplacedRoot(each.certificate, each.replaced_at) for each in found]


def former_roots_annotations(roots: Iterable[FormerRoot]) -> dict[str, str]:
    """Return the annotations of a Secret that record former roots. The digests are for versions that know no other."""
    roots = tuple(roots)
    recorded = format_former_roots(roots)
    return {
        FORMER_ROOTS: " ".join(map(root_digest, roots)),
        **({FORMER_ROOT_CERTIFICATES: recorded} if recorded else {}),
    }


def recorded_chain(secret: Secret | None) -> str | None:
    """Return the chain (PEM) that the operator has published for an external CA, as its Secret has it."""
    found = secret.data.get(CHAIN) if secret is not None else None
    return found.decode(errors="replace") if found else None


def root_digest(root: FormerRoot) -> str:
    """Return the digest of a former root for the annotation FORMER_ROOTS."""
    return hashlib.sha256(root.certificate.encode()).hexdigest()


def roots_of_profile(profile: CertificateProfile, snapshot: Snapshot, *, now: datetime) -> list[ReplacedRoot]:
    """Return the roots that the profile has had, the latest first, that of its present CA among them."""
    found = [*_recorded(profile, snapshot, now=now)]
    found += _unrecorded(profile, {each.pem for each in found}, snapshot, now=now)
    return sorted(found, key=lambda each: each.replaced_at, reverse=True)


def _recorded(profile: CertificateProfile, snapshot: Snapshot, *, now: datetime) -> Iterator[ReplacedRoot]:
    digest = profile_digest(key_of(profile))
    for secret in snapshot.by_index(SECRETS, SERVED, digest):
        if secret.metadata.namespace != snapshot.settings.namespace or not is_managed(secret):
            continue
        left, root = parse_served_profiles(secret.metadata).get(digest), _root_in(secret)
        if root is not None and (left is None or left.root == digest_of(root)):
            yield ReplacedRoot(root, left.at if left is not None else _left_at(profile, secret, root, now))
        for authority in snapshot.by_index(AUTHORITIES, UID, secret.metadata.labels.get(OWNER_UID)):
            for each in proven_former_roots(authority, secret):
                if left is None or each.replaced_at <= left.at:
                    yield each
                elif left.root == digest_of(each.pem):
                    yield ReplacedRoot(each.pem, left.at)


def _left_at(profile: CertificateProfile, secret: Secret, root: str, now: datetime) -> datetime:
    """Return when the profile has left a CA that has not recorded it: it was deleted, or cannot sign at present."""
    stated = [each.replaced_at for each in profile.status.former_roots if each.certificate == root]
    return deleted_at(secret.metadata) or min((now, *stated))


def _unrecorded(
    profile: CertificateProfile, recorded: Collection[str], snapshot: Snapshot, *, now: datetime
) -> Iterator[ReplacedRoot]:
    """Yield roots in the status that no Secret records, and that are those of CAs of the namespace.

    These CAs have no signing key, and name their root in their spec, or an old version has written their Secret.
    """
    status = profile.status
    stated = [ReplacedRoot(each.certificate, each.replaced_at) for each in status.former_roots]
    stated += [ReplacedRoot(status.root, now)] if status.root else []
    if all(each.pem in recorded for each in stated):
        return
    namespace = profile.metadata.namespace
    secrets = snapshot.by_index(SECRETS, INTERNAL, (snapshot.settings.namespace, namespace))
    known = {_root_in(each) for each in secrets if is_managed(each) and _known_in(each) is None}
    for authority in snapshot.all(AUTHORITIES):
        if authority.metadata.namespace == namespace and authority.spec.external is not None:
            known |= {root_pem(each) for each in authority.spec.external.trust_anchors}
    yield from (each for each in stated if each.pem in known and each.pem not in recorded)


def _known_in(secret: Secret) -> dict[str, Departure | None] | None:
    """Return what the Secret says of profiles; None if an old version has written it."""
    return parse_served_profiles(secret.metadata) if SERVED_PROFILES in secret.metadata.annotations else None


def _known_before(authority: CertificateAuthority, root: str, snapshot: Snapshot) -> dict[str, Departure | None]:
    """Return the profiles that have left the CA under an old version, as their statuses say."""
    return {
        profile_digest(key_of(profile)): Departure(each.replaced_at, digest_of(root))
        for profile in snapshot.all(PROFILES)
        if profile.metadata.namespace == authority.metadata.namespace
        for each in profile.status.former_roots
        if each.certificate == root
    }


def _root_in(secret: Secret) -> str | None:
    """Return the root (PEM) in the Secret of a signing key."""
    return root_pem(secret.data.get(TLS_CERTIFICATE, b"").decode(errors="replace"))
