"""EABCredential: a key for clients, and the server's copy of it.

Users find the key in a Secret beside the credential. The server, which may read Secrets in the release namespace only,
finds a verification copy there, under a name that follows from what a client presents. The copy is written first: a key
that a user can see is a key that works. Without a copy a key is void, so the copy is what the rules guard:

* a credential in a namespace that the profile does not allow has no copy; its own namespace is always allowed;
* a key identifier has one copy on a profile: the first credential that claims it keeps it;
* if the user's Secret is deleted, the old copy is deleted at once, then a new key is generated (rotation);
* if the credential is deleted, the copy is kept for a time, and a credential of the same namespace and name has the
  same key; meanwhile the key opens no accounts, since it has no credential;
* a Secret that a user has made is never written, only read and checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from kms.clock import Entropy
from kms.contract import READY, UNREADABLE, directory_url
from kms.resources.compile import InvalidRules, RulesTooCostly, compile_narrowing
from kms.resources.core import Secret
from kms.resources.credentials import CredentialStatus, EABCredential
from kms.resources.kinds import CREDENTIALS, NAMESPACES, PROFILES, SECRETS
from kms.resources.meta import condition, key_of
from kms.resources.profiles import CertificateProfile, NamespaceNames
from kms.resources.retained import CREDENTIAL_LIMIT_REACHED, SECRET_LIMIT_REACHED, is_reduced
from kms.resources.secret_names import (
    CA_CERTIFICATE,
    COMPONENT,
    DIRECTORY_URL,
    OWNER_UID,
    USER_CREDENTIAL,
    VERIFICATION_KEY,
    verification_key_name,
)
from kms_operator.endpoints import trust_anchor
from kms_operator.indexes import KEY_ID_IN_USE, NAMESPACE, UID
from kms_operator.objects import internal_secret, is_managed, is_owned_by, secret_changes, user_secret
from kms_operator.plan import (
    REREAD,
    ConditionUpdate,
    Event,
    Manifest,
    Plan,
    Refusal,
    earliest,
    merge_conditions,
    not_ready,
    ready,
    transition_events,
)
from kms_operator.reconcilers.client_namespaces import INVALID_RULES, names_for, suspension
from kms_operator.reconcilers.eab_keys import BindingKey, InvalidKey, key_in, new_key
from kms_operator.reconcilers.kept_keys import is_kept_for_another, predecessors
from kms_operator.reconcilers.placement import selects
from kms_operator.shares import credential_limit_reached, secret_limit_reached
from kms_operator.snapshot import Read, Snapshot

ISSUED = "Issued"
SUSPENDED = "Suspended"
EXPIRED = "Expired"
PROFILE_NOT_FOUND = "ProfileNotFound"
PROFILE_NOT_READY = "ProfileNotReady"
BINDING_DISABLED = "ExternalAccountBindingDisabled"
NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
SECRET_EXISTS = "SecretExists"  # noqa: S105 - a reason
INVALID_SECRET = "InvalidSecret"  # noqa: S105 - a reason
CLIENT_NAMESPACE_NOT_ALLOWED = "ClientNamespaceNotAllowed"
RULES_TOO_COSTLY = "RulesTooCostly"
KEY_NOT_DELIVERED = "KeyNotDelivered"
"""The server has a copy of the key, but the API server refused the Secret for users."""

RECHECK_PACE = timedelta(milliseconds=100)
"""Between two reads of users' Secrets for the credentials of one namespace, however many there are."""


class _Refused(Exception):
    """Why there is no valid key. `void`: existing copies must be deleted.

    `recheck`: the reason lies in a Secret that is not watched, so it must be read again.
    """

    def __init__(self, reason: str, message: str, *, void: bool, recheck: bool = False) -> None:
        super().__init__(message)
        self.update = not_ready(reason, message)
        self.void = void
        self.recheck = recheck


@dataclass(frozen=True, slots=True)
class _ValidKey:
    """The valid key, and what to write and to delete for it."""

    key: BindingKey
    apply: tuple[Manifest, ...]
    stale: tuple[Secret, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_at: datetime | None = None


def reads(credential: EABCredential, snapshot: Snapshot) -> Iterable[Read]:
    """The Secret for users, and the server's certificate; nothing for a credential that gets no key anyway."""
    if _is_doubtful(credential, snapshot):
        yield Read(CREDENTIALS, *key_of(credential), live=True)
    else:
        try:
            _admit(credential, snapshot)
        except _Refused:
            return
    yield Read(SECRETS, credential.metadata.namespace, credential.secret_name, optional=True)
    yield Read(SECRETS, snapshot.settings.namespace, snapshot.settings.serving_secret)


def plan(credential: EABCredential, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:
    """Make, keep, correct, rotate or void the key."""
    if _is_doubtful(credential, snapshot) and (whole := snapshot.get(CREDENTIALS, key_of(credential))) is not None:
        # Its rules are compiled again, whatever the status says of them.
        credential = msgspec.structs.replace(
            whole, status=msgspec.structs.replace(whole.status, observed_generation=None)
        )
    try:
        profile = _admit(credential, snapshot)
        valid = _plan_key(credential, profile, snapshot, now=now, entropy=entropy)
        if _copy_of(valid.key, profile, snapshot) is None and not _copies(credential, snapshot):
            _require_room(credential, snapshot)  # it was admitted because of a kept key, and has another one
    except _Refused as refusal:
        copies = _copies(credential, snapshot) if refusal.void else ()
        key_id = None if refusal.void else credential.status.key_id
        recheck_at = now + _recheck_interval(credential, snapshot) if refusal.recheck else None
        refused = Plan(delete=_manifests(copies), requeue_at=recheck_at)
        return _with_status(refused, credential, snapshot, (refusal.update,), key_id, now=now)
    expires = credential.spec.expires_at
    upcoming = expires if expires is not None and expires > now else None
    planned = Plan(
        delete=_manifests((*valid.stale, *_renamed_secrets(credential, snapshot))),
        apply=valid.apply,
        events=valid.events,
        requeue_at=earliest(upcoming, valid.requeue_at),
    )
    names, resolved = names_for(credential, profile, snapshot)

    def report(refusals: Sequence[Refusal] = ()) -> Plan:
        """State the conditions, given what the API server has refused."""
        usability = _refused(refusals, snapshot) or _usability(credential, profile, now=now)
        updates = (usability, *([resolved] if resolved else []))
        has_copy = not any(each.manifest.object.metadata.namespace == release for each in refusals)
        key_id = valid.key.key_id if has_copy else credential.status.key_id
        stated = replace(planned, events=()) if refusals else planned
        return _with_status(stated, credential, snapshot, updates, key_id, names=names, now=now)

    release = snapshot.settings.namespace
    return replace(report(), on_refusals=report)


def _refused(refusals: Sequence[Refusal], snapshot: Snapshot) -> ConditionUpdate | None:
    """Return Ready if the API server has refused something: its answer says which quota or policy."""
    if not refusals:
        return None
    first = refusals[0]
    undelivered = not first.manifest.object.metadata.resource_version and (
        first.manifest.object.metadata.namespace != snapshot.settings.namespace
    )
    return not_ready(KEY_NOT_DELIVERED if undelivered else first.reason, first.message)


def _is_doubtful(credential: EABCredential, snapshot: Snapshot) -> bool:
    """Whether the status says that the credential has no key, and the server has a copy of one.

    Then another program has changed the status, or the copy is about to be deleted.
    """
    return is_reduced(credential) and bool(_copies(credential, snapshot))


def _recheck_interval(credential: EABCredential, snapshot: Snapshot) -> timedelta:
    return max(REREAD, RECHECK_PACE * snapshot.index.count(CREDENTIALS, NAMESPACE, credential.metadata.namespace))


def _with_status(
    planned: Plan,
    credential: EABCredential,
    snapshot: Snapshot,
    updates: Sequence[ConditionUpdate],
    key_id: str | None,
    *,
    names: NamespaceNames | None = None,
    now: datetime,
) -> Plan:
    old = credential.status.conditions
    status = CredentialStatus(
        observed_generation=credential.metadata.generation,
        key_id=key_id,
        secret_name=credential.secret_name,
        accounts=snapshot.index.open_accounts(key_of(credential)),
        names=names,
        conditions=merge_conditions(old, updates, generation=credential.metadata.generation, now=now),
    )
    events = (event for each in updates for event in transition_events(old, each))
    return replace(planned, status=status, events=(*events, *planned.events))


def _usability(credential: EABCredential, profile: CertificateProfile, *, now: datetime) -> ConditionUpdate:
    """Return what clients can do with the key; the server enforces the same from the same fields."""
    expires = credential.spec.expires_at
    if expires is not None and expires <= now:
        return not_ready(
            EXPIRED, f"expired at {expires:%Y-%m-%dT%H:%M:%SZ}; opens no new accounts, existing ones stay valid"
        )
    if credential.spec.suspended:
        return not_ready(
            SUSPENDED, "opens no new accounts, and its accounts may not order, until spec.suspended is false"
        )
    if suspended := suspension(credential, profile):
        return suspended
    return ready(ISSUED, f"Secret {credential.secret_name} holds the key identifier and the key")


def _admit(credential: EABCredential, snapshot: Snapshot) -> CertificateProfile:
    """Return the profile. Raises _Refused if the credential gets no key, whatever its Secret holds.

    That depends on watched objects only, so that a credential that is refused costs neither reads nor a timer.
    """
    _check_names(credential)
    profile = _get_profile(credential, snapshot)
    _check_limits(credential, profile, snapshot)
    return profile


def _repeat_invalid_rules(credential: EABCredential) -> None:
    """Raise _Refused if the names of this version were invalid: the cache no longer has them."""
    found = condition(credential.status.conditions, READY)
    if found is not None and found.reason in {INVALID_RULES, RULES_TOO_COSTLY}:
        raise _Refused(found.reason, found.message, void=found.reason == INVALID_RULES)


def _check_limits(credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot) -> None:
    """Raise _Refused if the credential has no copy on the profile yet, and a limit leaves no room for one."""
    acme = profile.spec.enrollment.acme
    copies = _copies(credential, snapshot)
    if acme is None or any(
        each.metadata.name == _copy_name(key, profile) for each in copies if (key := _parse_key(each)) is not None
    ):
        return
    if message := credential_limit_reached(credential, acme, snapshot):
        raise _Refused(CREDENTIAL_LIMIT_REACHED, message, void=True)
    if not copies and _kept_key(credential, profile, snapshot) is None:
        _require_room(credential, snapshot)


def _require_room(credential: EABCredential, snapshot: Snapshot) -> None:
    if message := secret_limit_reached(credential.metadata.namespace, snapshot):
        raise _Refused(SECRET_LIMIT_REACHED, message, void=True)


def _check_names(credential: EABCredential) -> None:
    """Raise _Refused if the names that narrow the policy are invalid: the credential would allow more than intended."""
    if credential.spec.names is None:
        return
    try:
        if is_reduced(credential):
            _repeat_invalid_rules(credential)
        compile_narrowing(credential.spec.names, credential.metadata.name)
    except InvalidRules as error:
        # Too costly rules are clear, so the key stays; the server refuses orders until they are shortened.
        costly = isinstance(error, RulesTooCostly)
        reason = RULES_TOO_COSTLY if costly else INVALID_RULES
        raise _Refused(reason, f"{error.field}: {error.message}", void=not costly) from error


def _check_client_namespace(credential: EABCredential, profile_namespace: str) -> None:
    """Raise _Refused if the credential names another namespace than its own, and is not beside its profile."""
    home, named = credential.metadata.namespace, credential.spec.client_namespace
    if named is not None and home not in (named, profile_namespace):
        message = (
            f"spec.clientNamespace: only a credential in namespace {profile_namespace}, where its profile is, may be"
            f" for clients of another namespace than its own; omit the field, or write {home}"
        )
        raise _Refused(CLIENT_NAMESPACE_NOT_ALLOWED, message, void=True)


def _get_profile(credential: EABCredential, snapshot: Snapshot) -> CertificateProfile:
    namespace, name = credential.profile_key
    profile = snapshot.profile((namespace, name))
    if profile is None and (unreadable := snapshot.unreadable(PROFILES, (namespace, name))) is not None:
        message = f"CertificateProfile {namespace}/{name} cannot be read: {unreadable}"
        raise _Refused(UNREADABLE, message, void=False)
    if profile is None:
        raise _Refused(PROFILE_NOT_FOUND, f"CertificateProfile {namespace}/{name} does not exist", void=False)
    if is_reduced(profile):
        # The cache has not got its settings, so they void no key.
        message = f"CertificateProfile {namespace}/{name} is not in force; see its condition Ready"
        raise _Refused(PROFILE_NOT_READY, message, void=False)
    acme = profile.spec.enrollment.acme
    if acme is None or acme.external_account_binding == "Disabled":
        message = f"CertificateProfile {namespace}/{name} does not use external account binding"
        raise _Refused(BINDING_DISABLED, message, void=False)
    home = credential.metadata.namespace
    _check_client_namespace(credential, namespace)
    if home != namespace and not selects(acme.allowed_namespaces, home, home=namespace, snapshot=snapshot):
        message = (
            f"CertificateProfile {namespace}/{name} does not allow credentials in namespace {home}"
            " (spec.enrollment.acme.allowedNamespaces)"
        )
        if acme.allowed_namespaces.from_ == "Selector" and snapshot.get(NAMESPACES, ("", home)) is None:
            message += "; the labels of the namespace are not known yet"
        raise _Refused(NAMESPACE_NOT_ALLOWED, message, void=True)
    return profile


def _plan_key(
    credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot, *, now: datetime, entropy: Entropy
) -> _ValidKey:
    """Return the valid key. Raises _Refused if there can be none."""
    if (denial := snapshot.denial(SECRETS, (credential.metadata.namespace, credential.secret_name))) is not None:
        message = f"Secret {credential.secret_name} cannot be read: {denial}"
        raise _Refused(denial.reason, message, void=False)
    secret = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    copies = _copies(credential, snapshot)
    if secret is None and (undelivered := _undelivered_key(credential, profile, copies)) is not None:
        return _ValidKey(
            undelivered,
            _secrets_to_write(credential, profile, undelivered, snapshot),
            _stale_copies(copies, undelivered, profile),
        )
    if secret is None:
        if not copies and (kept := _kept_key(credential, profile, snapshot)) is not None:
            restored = Event("Restored", f"Secret {credential.secret_name} has the key of the deleted credential again")
            return _ValidKey(kept, _secrets_to_write(credential, profile, kept, snapshot), events=(restored,))
        key = new_key(entropy)
        rotated = credential.status.key_id is not None or bool(copies)
        event = Event(
            "Rotated",
            f"Secret {credential.secret_name} was deleted; the operator has revoked the old key and made a new one",
        )
        return _ValidKey(
            key, _secrets_to_write(credential, profile, key, snapshot), copies, (event,) if rotated else ()
        )
    if not _is_ours(secret, credential):
        key = _read_user_key(credential, profile, secret, snapshot)
        copy = secret_changes(_copy_of(key, profile, snapshot), verification_copy(credential, profile, key, snapshot))
        return _ValidKey(
            key, copy, _stale_copies(copies, key, profile), requeue_at=now + _recheck_interval(credential, snapshot)
        )
    key, events = _recover_key(credential, profile, secret, snapshot, entropy=entropy)
    return _ValidKey(
        key, _secrets_to_write(credential, profile, key, snapshot), _stale_copies(copies, key, profile), events
    )


def _undelivered_key(
    credential: EABCredential, profile: CertificateProfile, copies: Iterable[Secret]
) -> BindingKey | None:
    """Return the key of which users have not seen a Secret yet, because the API server refused it."""
    stated = condition(credential.status.conditions, READY)
    if stated is None or stated.reason != KEY_NOT_DELIVERED:
        return None
    keys = (key for each in copies if (key := _parse_key(each)) and each.metadata.name == _copy_name(key, profile))
    return next((each for each in keys if each.key_id == credential.status.key_id), None)


def _kept_key(credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot) -> BindingKey | None:
    """Return the key of a deleted credential of this namespace and name on the profile; None if there is none."""
    for copy in predecessors(credential, CREDENTIALS, VERIFICATION_KEY, snapshot):
        key = _parse_key(copy)
        if key is not None and copy.metadata.name == _copy_name(key, profile):
            return key
    return None


def _read_user_key(
    credential: EABCredential, profile: CertificateProfile, secret: Secret, snapshot: Snapshot
) -> BindingKey:
    """Return the key of a Secret that a user has made. Raises _Refused if it cannot be used."""
    name = secret.metadata.name
    if is_managed(secret):
        message = f"Secret {name} belongs to another resource; choose another name in spec.secretName"
        raise _Refused(SECRET_EXISTS, message, void=True, recheck=True)
    try:
        key = key_in(secret)
    except InvalidKey as error:
        message = f"Secret {name} was not made by the operator and cannot be used: {error}"
        raise _Refused(INVALID_SECRET, message, void=True, recheck=True) from error
    if _claimed_by_another(key, credential, profile, snapshot):
        message = (
            f"another credential of CertificateProfile {profile.metadata.namespace}/{profile.metadata.name} uses the"
            f" key identifier {key.key_id!r}; put another one into Secret {name}"
        )
        raise _Refused(KEY_ID_IN_USE, message, void=True, recheck=True)
    return key


def _claimed_by_another(
    key: BindingKey, credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot
) -> bool:
    """Whether the copy belongs to another credential: a later one must not void its key.

    That holds also while it is kept for a credential that was deleted, unless it was one of the same name.
    """
    copy = _copy_of(key, profile, snapshot)
    if copy is None:
        return False
    holder = copy.metadata.labels.get(OWNER_UID)
    if holder is None or holder == credential.metadata.uid:
        return False
    exists = snapshot.by_index(CREDENTIALS, UID, holder) or snapshot.index.is_unreadable(CREDENTIALS, holder)
    return bool(exists) or is_kept_for_another(copy, credential, CREDENTIALS)


def _recover_key(
    credential: EABCredential, profile: CertificateProfile, secret: Secret, snapshot: Snapshot, *, entropy: Entropy
) -> tuple[BindingKey, tuple[Event, ...]]:
    """Return the key of a Secret that the operator made. The copy is authoritative: users cannot write to it."""
    name = secret.metadata.name
    present = _parse_key(secret)
    held = [
        key
        for copy in _copies(credential, snapshot)
        if (key := _parse_key(copy)) is not None and copy.metadata.name == _copy_name(key, profile)
    ]
    if present is not None and present in held:
        return present, ()
    if held:
        key = next((each for each in held if each.key_id == credential.status.key_id), held[0])
        return key, (Event("Repaired", f"Secret {name} was changed; the operator has restored the key"),)
    if present is not None and not _claimed_by_another(present, credential, profile, snapshot):
        return present, ()
    return new_key(entropy), (Event("Rotated", f"Secret {name} lost its key; the operator has made a new one"),)


def _secrets_to_write(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> tuple[Manifest, ...]:
    """Return what to write: the copy first, then the Secret for users."""
    existing = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    return (
        *secret_changes(_copy_of(key, profile, snapshot), verification_copy(credential, profile, key, snapshot)),
        *secret_changes(existing, credential_secret(credential, profile, key, snapshot)),
    )


def credential_secret(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> Secret:
    """Build the Secret for users: key identifier, key, directory and its CA."""
    url = directory_url(snapshot.settings.external_url, profile.metadata.namespace, profile.metadata.name)
    anchor = trust_anchor(snapshot)
    data = {**key.data, DIRECTORY_URL: url.encode(), **({CA_CERTIFICATE: anchor} if anchor else {})}
    return user_secret(credential.secret_name, component=USER_CREDENTIAL, owner=credential, kind=CREDENTIALS, data=data)


def verification_copy(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> Secret:
    """Build the server's copy, in the release namespace."""
    return internal_secret(
        snapshot.settings.namespace,
        _copy_name(key, profile),
        component=VERIFICATION_KEY,
        owner=credential,
        kind=CREDENTIALS,
        data=key.data,
    )


def _copies(credential: EABCredential, snapshot: Snapshot) -> tuple[Secret, ...]:
    return tuple(
        each
        for each in snapshot.owned_by(SECRETS, credential)
        if each.metadata.namespace == snapshot.settings.namespace
        and each.metadata.labels.get(COMPONENT) == VERIFICATION_KEY
    )


def _stale_copies(copies: tuple[Secret, ...], key: BindingKey, profile: CertificateProfile) -> tuple[Secret, ...]:
    return tuple(each for each in copies if each.metadata.name != _copy_name(key, profile))


def _renamed_secrets(credential: EABCredential, snapshot: Snapshot) -> tuple[Secret, ...]:
    """Return the Secrets under earlier values of spec.secretName."""
    return tuple(
        each
        for each in snapshot.owned_by(SECRETS, credential)
        if each.metadata.labels.get(COMPONENT) == USER_CREDENTIAL
        and is_owned_by(each, credential)
        and each.metadata.name != credential.secret_name
    )


def _copy_of(key: BindingKey, profile: CertificateProfile, snapshot: Snapshot) -> Secret | None:
    return snapshot.internal_secret(_copy_name(key, profile))


def _copy_name(key: BindingKey, profile: CertificateProfile) -> str:
    return verification_key_name(profile.metadata.namespace, profile.metadata.name, key.key_id)


def _is_ours(secret: Secret, credential: EABCredential) -> bool:
    """Whether the operator made the Secret for this credential, even if its owner reference was removed."""
    orphaned = not secret.metadata.owner_references and secret.metadata.labels.get(COMPONENT) == USER_CREDENTIAL
    return is_owned_by(secret, credential) or (orphaned and is_managed(secret))


def _manifests(secrets: Iterable[Secret]) -> tuple[Manifest, ...]:
    return tuple(Manifest(SECRETS, each) for each in secrets)


def _parse_key(secret: Secret) -> BindingKey | None:
    try:
        return key_in(secret)
    except InvalidKey:
        return None
