"""The move of a profile to another CA: clients trust its root before it issues, and the former root for some time.

Certificates below the former root stay in use until they end. So `chain.crt` has that root too, for the time that
`spec.trust.overlap` of the new CA says. The server issues with the CA in the status of the profile, which follows the
spec once `chain.crt` has the new root, and once the roots of the new CA are published as its `spec.trust` says.

Which roots the profile has had is in the Secrets of the signing keys (`served_profiles`), not in its status.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kms.contract import READY, TRUST_PUBLISHED, WAITING_FOR_CERTIFICATE
from kms.pki.ca import anchors, former_roots, root_pem
from kms.resources.authorities import CertificateAuthority, FormerRoot, Trust
from kms.resources.durations import parse_duration
from kms.resources.meta import LocalRef, condition, is_true
from kms.resources.profiles import CertificateProfile
from kms_operator.reconcilers.served_profiles import has_served, proven_chain, roots_of_profile
from kms_operator.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class TrustedRoots:
    """What clients of a profile trust: `chain` (PEM) is that of the CA with former roots behind it; empty: unknown yet.

    `until` is when the first former root is left out.
    """

    chain: str
    root: str | None
    former: tuple[FormerRoot, ...] = ()
    until: datetime | None = None


def trusted_roots(
    profile: CertificateProfile, authority: CertificateAuthority | None, snapshot: Snapshot, *, now: datetime
) -> TrustedRoots:
    """Return the chain of the CA, with the roots that it has replaced for this profile."""
    chain = proven_chain(authority, snapshot) if authority is not None else None
    former = former_roots(roots_of_profile(profile, snapshot, now=now), None, chain, now=now)
    kept = tuple(FormerRoot(certificate=each.pem, replaced_at=each.replaced_at) for each in former)
    if authority is None or not chain or (root := root_pem(chain)) is None:
        return TrustedRoots(chain or "", None, kept)
    section = authority.spec.trust or Trust()
    try:
        trusted = anchors(chain, former, overlap=parse_duration(section.overlap), now=now)
    except ValueError:  # the condition TrustPublished of the CA says it
        trusted = anchors(chain, former, overlap=parse_duration(Trust().overlap), now=now)
    if trusted is None:
        return TrustedRoots(chain, root, kept)
    return TrustedRoots(chain + trusted.former, root, kept, trusted.until)


def issuer_in_force(
    profile: CertificateProfile, authority: CertificateAuthority | None, snapshot: Snapshot
) -> LocalRef:
    """Return the CA that the server is to issue with."""
    wanted, current = profile.spec.issuer_ref, profile.status.issuer_ref
    if current is None or current == wanted:
        return wanted
    before = snapshot.authority(current, namespace=profile.metadata.namespace)
    if before is None or not is_true(before.status.conditions, READY):
        return wanted  # it cannot issue any more
    if not has_served(before, profile, snapshot):
        return wanted  # another program has changed the status
    return wanted if authority is not None and _is_trusted(authority) else current


def is_published(authority: CertificateAuthority) -> bool:
    """Whether the root is published as the present spec asks; the reconciler of `spec.trust` states that."""
    if authority.spec.trust is None:
        return True
    published = condition(authority.status.conditions, TRUST_PUBLISHED)
    return published is not None and (published.status, published.observed_generation) == (
        "True",
        authority.metadata.generation,
    )


def _is_trusted(authority: CertificateAuthority) -> bool:
    """Whether the CA is ready and its root published, as far as it can be: TrustPublished says what is missing."""
    if not is_true(authority.status.conditions, READY):
        return False
    if authority.spec.trust is None:
        return True
    published = condition(authority.status.conditions, TRUST_PUBLISHED)
    return published is not None and published.reason != WAITING_FOR_CERTIFICATE
