"""CertificateProfile: can clients enroll with it, and where?

`ResolvedRefs` says whether its issuing CA, its policy and the order profiles of its directory exist and are ready,
`OwnershipValidated` whether clients must prove control of names, `Published` whether the Secret for users exists,
`CertManagerIssuer` whether its issuers for cert-manager exist, `NamespacesSeparated` whether each namespace has an
account of its own with them, `OpenEnrollment` whether an open profile is allowed in its namespace, `Warnings` which
parts have no effect, `DurationShortened` whether certificates end with their CA, and `Ready` whether the server can
issue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from kms.clock import Entropy
from kms.contract import (
    NOTIFICATIONS,
    OPEN_ENROLLMENT,
    READY,
    UNREADABLE,
    directory_url,
    may_offer,
    objection_to_skipping,
)
from kms.pki.policy import Policy, contents_violations, unlisted_names
from kms.resources.authorities import CertificateAuthority
from kms.resources.client_namespaces import check_templates
from kms.resources.compile import InvalidRules, compile_policy
from kms.resources.core import Secret
from kms.resources.durations import parse_duration
from kms.resources.kept import deleted_at, kept_until
from kms.resources.kinds import AUTHORITIES, POLICIES, PROFILES, SECRETS
from kms.resources.meta import Unreadable, is_true, key_of
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import AcmeEnrollment, CertificateProfile, OrderProfile, ProfileStatus
from kms.resources.retained import PROFILE_LIMIT_REACHED, is_reduced
from kms.resources.secret_names import CA_CERTIFICATE, CHAIN, DIRECTORY, DIRECTORY_URL, directory_secret_name
from kms_operator.endpoints import trust_anchor
from kms_operator.objects import is_owned_by, secret_changes, user_secret
from kms_operator.plan import (
    REREAD,
    ConditionUpdate,
    Event,
    Manifest,
    Plan,
    Refusal,
    carried_out,
    earliest,
    merge_conditions,
    not_ready,
    ready,
    transition_events,
)
from kms_operator.reconcilers import certmanager_issuers
from kms_operator.reconcilers.authority_limits import shortening, warnings_about_usages
from kms_operator.reconcilers.client_namespaces import (
    INVALID_RULES,
    separation,
    suspended_namespaces,
    suspension_events,
)
from kms_operator.reconcilers.external_contents import CONTENTS_NOT_APPLICABLE, inapplicable_contents
from kms_operator.reconcilers.issuer_change import TrustedRoots, issuer_in_force, trusted_roots
from kms_operator.reconcilers.kept_keys import kept_authority
from kms_operator.reconcilers.placement import recheck_interval
from kms_operator.reconcilers.rules_without_effect import (
    NOTHING_ALLOWED,
    left_by_profile,
    warnings,
    warnings_of_profile,
)
from kms_operator.shares import profile_limit_reached
from kms_operator.snapshot import Read, Snapshot

RESOLVED_REFS = "ResolvedRefs"
OWNERSHIP_VALIDATED = "OwnershipValidated"
PUBLISHED = "Published"
SECRET_EXISTS = "SecretExists"  # noqa: S105 - a reason
OPEN_PROFILE_NOT_ALLOWED = "OpenProfileNotAllowed"
AUTHORITY_DELETED = "CertificateAuthorityDeleted"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class _Refused(Exception):
    """Why no certificate can be issued with the profile."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.update = not_ready(reason, message)


def reads(profile: CertificateProfile, snapshot: Snapshot) -> Iterator[Read]:
    """The Secret for users, the server's certificate, and what issuers for cert-manager need."""
    if _not_in_force(profile, snapshot):
        return
    yield Read(SECRETS, profile.metadata.namespace, directory_secret_name(profile.metadata.name), optional=True)
    yield Read(SECRETS, snapshot.settings.namespace, snapshot.settings.serving_secret)
    yield from certmanager_issuers.reads(profile, snapshot)


def plan(profile: CertificateProfile, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:  # noqa: ARG001 - all reconcilers are called alike
    """Resolve references, check the contents against the policy, publish the directory Secret."""
    if refusal := _not_in_force(profile, snapshot):
        return _refuse(profile, refusal, snapshot, now=now)
    namespace = profile.metadata.namespace
    acme = profile.spec.enrollment.acme
    policy = snapshot.policy(profile.spec.policy_ref, namespace=namespace)
    authority = snapshot.authority(profile.spec.issuer_ref, namespace=namespace)
    is_ready, references, *warned = _check(profile, policy, authority, snapshot)
    shortened, changes_at = shortening(profile, authority, now=now) if authority is not None else (None, None)
    warned += [shortened] if shortened else []
    roots = trusted_roots(profile, authority, snapshot, now=now)
    published, secrets, repaired = _publish(profile, roots, snapshot)
    issuers = certmanager_issuers.plan_issuers(profile, snapshot)
    openness = _openness(profile, snapshot)
    separated = [found] if (found := separation(profile)) else []
    suspended = suspended_namespaces(profile)
    generation, old = profile.metadata.generation, profile.status.conditions

    def report(refusals: Sequence[Refusal] = ()) -> Plan:
        """State the conditions, given what the API server has refused."""
        directory = _refused_directory(published, secrets, refusals)
        requested = [found] if (found := issuers.condition(refusals)) else []
        updates = [
            is_ready,
            references,
            *([_ownership(acme), directory] if acme else []),
            *([openness] if openness else []),
            *requested,
            *separated,
            *warned,
        ]
        recheck = REREAD if directory.reason == SECRET_EXISTS else recheck_interval(issuers.refused)
        incomplete = any(each.status == "False" for each in (directory, *requested))
        in_force = issuer_in_force(profile, authority, snapshot)
        # Where Ready is False, it speaks for the references.
        without = incomplete or (is_ready.status == "True" and references.status == "False")
        moves = in_force != profile.spec.issuer_ref
        failed = transition_events(old, directory) if directory.status == "False" else ()
        issued = (event for each in (*requested, *separated, *warned) for event in transition_events(old, each))
        return Plan(
            status=ProfileStatus(
                observed_generation=carried_out(
                    profile.status.observed_generation, generation, complete=not (without or moves)
                ),
                issuer_ref=in_force,
                root=roots.root,
                former_roots=roots.former,
                directory_url=_url(profile, snapshot) if acme else None,
                suspended_namespaces=suspended,
                conditions=merge_conditions(old, updates, generation=generation, now=now, keep=(NOTIFICATIONS,)),
            ),
            events=(
                *transition_events(old, is_ready),
                *failed,
                *(repaired if directory.status == "True" else ()),
                *issued,
                *suspension_events(profile.status.suspended_namespaces, suspended),
            ),
            requeue_at=earliest(changes_at, roots.until, now + recheck if incomplete else None),
        )

    return replace(report(), delete=issuers.delete, apply=(*secrets, *issuers.apply), on_refusals=report)


def _refused_directory(
    published: ConditionUpdate, secrets: Sequence[Manifest], refusals: Sequence[Refusal]
) -> ConditionUpdate:
    """Return Published; False if the API server has refused the Secret for users."""
    refused = next((each for each in refusals if each.manifest in secrets), None)
    return published if refused is None else ConditionUpdate("False", refused.reason, refused.message, PUBLISHED)


def _not_in_force(profile: CertificateProfile, snapshot: Snapshot) -> ConditionUpdate | None:
    """Return Ready if the profile is beyond the limit of its namespace, or is about to come into force."""
    if message := profile_limit_reached(profile, snapshot):
        return not_ready(PROFILE_LIMIT_REACHED, message)
    if is_reduced(profile):
        # The cache has not got its spec. The write of this status brings it.
        return not_ready("Pending", "the profile is about to come into force")
    return None


def _refuse(profile: CertificateProfile, update: ConditionUpdate, snapshot: Snapshot, *, now: datetime) -> Plan:
    old, generation = profile.status.conditions, profile.metadata.generation
    status = ProfileStatus(
        observed_generation=generation,
        issuer_ref=profile.status.issuer_ref,
        former_roots=trusted_roots(profile, None, snapshot, now=now).former,
        conditions=merge_conditions(old, (update,), generation=generation, now=now, keep=(NOTIFICATIONS,)),
    )
    return Plan(status=status, events=transition_events(old, update))


def directory_secret(profile: CertificateProfile, roots: TrustedRoots, snapshot: Snapshot) -> Secret:
    """Build the Secret `<profile>-acme`: the directory, its CA, the chain of issued certificates, and former roots."""
    data = {DIRECTORY_URL: _url(profile, snapshot).encode()}
    if anchor := trust_anchor(snapshot):
        data[CA_CERTIFICATE] = anchor
    if roots.chain:
        data[CHAIN] = roots.chain.encode()
    name = directory_secret_name(profile.metadata.name)
    return user_secret(name, component=DIRECTORY, owner=profile, kind=PROFILES, data=data)


def _url(profile: CertificateProfile, snapshot: Snapshot) -> str:
    return directory_url(snapshot.settings.external_url, profile.metadata.namespace, profile.metadata.name)


def _check(
    profile: CertificateProfile,
    policy: CertificatePolicy | None,
    authority: CertificateAuthority | None,
    snapshot: Snapshot,
) -> tuple[ConditionUpdate, ...]:
    """Ready and ResolvedRefs, and Warnings if a part of the profile has no effect."""
    try:
        rules = _resolve(profile, policy, authority, snapshot)
    except _Refused as refusal:
        return refusal.update, replace(refusal.update, type=RESOLVED_REFS)
    resolved = ConditionUpdate("True", RESOLVED_REFS, "the issuing CA is ready, and the policy exists", RESOLVED_REFS)
    try:
        _check_contents(profile, rules)
        _check_external(profile, authority)
        _check_openness(profile, snapshot)
        left = left_by_profile(_check_enrollment(profile.spec.enrollment.acme, rules), rules, authority)
        if left.objection is not None:
            raise _Refused(NOTHING_ALLOWED, left.objection)  # noqa: TRY301 - one answer for all refusals
    except _Refused as refusal:
        return refusal.update, resolved
    enrolling = ready(READY, f"ACME clients enroll at {_url(profile, snapshot)}")
    usages = warnings_about_usages(profile, authority) if authority is not None else ()
    warned = warnings((*warnings_of_profile(profile, left), *usages))
    return enrolling, _not_offered(profile, snapshot) or resolved, *warned


def _not_offered(profile: CertificateProfile, snapshot: Snapshot) -> ConditionUpdate | None:
    """Return ResolvedRefs if an order profile is not offered; None if all are.

    The directory works without it: the server does not list it, and clients that ask for it try again.
    """
    flaws = [
        (reason, f'order profile "{entry.name}" is not offered (spec.enrollment.acme.profiles): {why}')
        for entry in (profile.spec.enrollment.acme.profiles if profile.spec.enrollment.acme else ())
        for reason, why in _flaws(profile, snapshot, entry)
    ]
    if not flaws:
        return None
    return ConditionUpdate("False", flaws[0][0], "; ".join(message for _, message in flaws), RESOLVED_REFS)


def _flaws(profile: CertificateProfile, snapshot: Snapshot, entry: OrderProfile) -> Iterator[tuple[str, str]]:
    namespace, acme = profile.metadata.namespace, profile.spec.enrollment.acme
    if entry.profile_ref.name == profile.metadata.name:
        return  # the directory's own profile, whose condition Ready is checked anyway
    lent = snapshot.profile((namespace, entry.profile_ref.name))
    name = f"CertificateProfile {namespace}/{entry.profile_ref.name}"
    if lent is None:
        missing = _missing("ProfileNotFound", name, snapshot.unreadable(PROFILES, (namespace, entry.profile_ref.name)))
        yield missing.update.reason, missing.update.message
        return
    if not is_true(lent.status.conditions, READY):
        yield "ProfileNotReady", f"{name} is not ready"
    elif acme is not None and not may_offer(acme, rules := _rules_of(lent, snapshot)):
        why = "is invalid" if rules is None else f"allows {unlisted_names(rules)}"
        message = f"ownershipValidation: Skipped needs a policy that lists names, and that of {name} {why}"
        yield "OwnershipValidationRequired", message


def _rules_of(profile: CertificateProfile, snapshot: Snapshot) -> Policy | None:
    policy = snapshot.policy(profile.spec.policy_ref, namespace=profile.metadata.namespace)
    try:
        return None if policy is None or is_reduced(policy) else compile_policy(policy)
    except InvalidRules:
        return None


def _resolve(
    profile: CertificateProfile,
    policy: CertificatePolicy | None,
    authority: CertificateAuthority | None,
    snapshot: Snapshot,
) -> Policy:
    """The compiled policy. Raises _Refused where a reference leads nowhere, or to what is not ready."""
    namespace = profile.metadata.namespace
    authority_name = f"CertificateAuthority {namespace}/{profile.spec.issuer_ref.name}"
    policy_name = f"CertificatePolicy {namespace}/{profile.spec.policy_ref.name}"
    if authority is None:
        why = snapshot.unreadable(AUTHORITIES, (namespace, profile.spec.issuer_ref.name))
        raise _missing_authority(profile, authority_name, why, snapshot)
    if policy is None:
        why = snapshot.unreadable(POLICIES, (namespace, profile.spec.policy_ref.name))
        raise _missing("PolicyNotFound", policy_name, why)
    if is_reduced(policy):
        # Its status is about to say that it is used; then its rules are cached, and this profile is reconciled again.
        raise _Refused("PolicyNotReady", f"{policy_name} is about to come into force")
    if not is_true(authority.status.conditions, READY):
        raise _Refused("IssuerNotReady", f"{authority_name} is not ready")
    try:
        return compile_policy(policy)
    except InvalidRules as error:
        raise _Refused("PolicyInvalid", f"{policy_name}: {error.field}: {error.message}") from error


def _missing_authority(
    profile: CertificateProfile, authority_name: str, why: Unreadable | None, snapshot: Snapshot
) -> _Refused:
    kept = kept_authority(profile.metadata.namespace, profile.spec.issuer_ref.name, snapshot)
    since, until = (deleted_at(kept.metadata), kept_until(kept.metadata)) if kept is not None else (None, None)
    if why is not None or kept is None or since is None or until is None:
        return _missing("IssuerNotFound", authority_name, why)
    return _Refused(
        AUTHORITY_DELETED,
        f"{authority_name} was deleted at {since:{_TIME}}; create it again with the same spec until {until:{_TIME}},"
        f" and it has the same key and certificate (Secret {kept.metadata.namespace}/{kept.metadata.name})",
    )


def _missing(reason: str, name: str, unreadable: Unreadable | None) -> _Refused:
    if unreadable is not None:
        return _Refused(UNREADABLE, f"{name} cannot be read: {unreadable}")
    return _Refused(reason, f"{name} does not exist")


def _check_contents(profile: CertificateProfile, rules: Policy) -> None:
    try:
        duration = parse_duration(profile.spec.certificate.duration)
    except ValueError as error:
        raise _Refused("InvalidDuration", f"spec.certificate.duration: {error}") from error
    violations = contents_violations(frozenset(profile.spec.certificate.usages), duration, rules)
    if violations:
        raise _Refused("PolicyViolated", "; ".join(each.message for each in violations))


def _check_external(profile: CertificateProfile, authority: CertificateAuthority | None) -> None:
    external = authority.spec.external if authority is not None else None
    if external is None:
        return
    if objections := tuple(inapplicable_contents(profile.spec.certificate, external)):
        raise _Refused(CONTENTS_NOT_APPLICABLE, "; ".join(objections))


def _check_enrollment(acme: AcmeEnrollment | None, rules: Policy) -> AcmeEnrollment:
    if acme is None:
        raise _Refused("NoEnrollmentMethod", "no method of enrollment is set; set spec.enrollment.acme")
    for field, text in (
        ("orderLifetime", acme.order_lifetime),
        ("authorizationLifetime", acme.authorization_lifetime),
    ):
        try:
            parse_duration(text)
        except ValueError as error:
            raise _Refused("InvalidDuration", f"spec.enrollment.acme.{field}: {error}") from error
    try:
        check_templates(acme.allowed_namespaces)
    except InvalidRules as error:
        raise _Refused(INVALID_RULES, f"{error.field}: {error.message}") from error
    if objection := objection_to_skipping(acme, rules):
        raise _Refused("OwnershipValidationRequired", objection)
    return acme


def _check_openness(profile: CertificateProfile, snapshot: Snapshot) -> None:
    openness = _openness(profile, snapshot)
    if openness is not None and openness.status == "False":
        raise _Refused(openness.reason, openness.message)


def _openness(profile: CertificateProfile, snapshot: Snapshot) -> ConditionUpdate | None:
    """Return OpenEnrollment, on which the server relies; None for a profile that is not open."""
    acme, namespace = profile.spec.enrollment.acme, profile.metadata.namespace
    if acme is None or not acme.is_open:
        return None
    if snapshot.settings.allows_open_profiles(namespace):
        return ConditionUpdate("True", "Allowed", f"namespace {namespace} may have open profiles", OPEN_ENROLLMENT)
    message = (
        f"profiles of namespace {namespace} must have externalAccountBinding: Required and ownershipValidation:"
        f" Required; to allow others, start the operator with --open-profiles-from {namespace} (in the chart"
        " operator.openProfilesFrom)"
    )
    return ConditionUpdate("False", OPEN_PROFILE_NOT_ALLOWED, message, OPEN_ENROLLMENT)


def _ownership(acme: AcmeEnrollment) -> ConditionUpdate:
    if not acme.validates_ownership:
        message = "clients with an EAB credential get certificates for all names of the policy without proof of control"
        return ConditionUpdate("False", "Skipped", message, OWNERSHIP_VALIDATED)
    return ConditionUpdate("True", "Required", "clients prove control of each name", OWNERSHIP_VALIDATED)


def _publish(
    profile: CertificateProfile, roots: TrustedRoots, snapshot: Snapshot
) -> tuple[ConditionUpdate, tuple[Manifest, ...], tuple[Event, ...]]:
    """Return the condition of the Secret for users, what to write, and the Event of a correction."""
    wanted = directory_secret(profile, roots, snapshot)
    name = wanted.metadata.name
    if (denial := snapshot.denial(SECRETS, key_of(wanted))) is not None:
        message = f"Secret {name} cannot be read: {denial}"
        return ConditionUpdate("False", denial.reason, message, PUBLISHED), (), ()
    existing = snapshot.secret(profile.metadata.namespace, name)
    if existing is not None and not is_owned_by(existing, profile):
        message = f"Secret {name} exists and does not belong to this profile; delete it, or rename the profile"
        return ConditionUpdate("False", SECRET_EXISTS, message, PUBLISHED), (), ()
    update = ConditionUpdate(
        "True", PUBLISHED, f"Secret {name} tells clients where to enroll and what to trust", PUBLISHED
    )
    if profile.spec.enrollment.acme is None:
        return update, (), ()
    return update, secret_changes(existing, wanted), _repairs(profile, existing, wanted)


def _repairs(profile: CertificateProfile, existing: Secret | None, wanted: Secret) -> tuple[Event, ...]:
    """Return an Event if the Secret was deleted or its URL changed; a new chain of the CA is no repair."""
    lost = existing is None and any(each.type == PUBLISHED for each in profile.status.conditions)
    changed = existing is not None and existing.data.get(DIRECTORY_URL) != wanted.data[DIRECTORY_URL]
    if not lost and not changed:
        return ()
    how = "deleted" if lost else "changed"
    return (Event("Repaired", f"Secret {wanted.metadata.name} was {how}; the operator has restored it"),)
