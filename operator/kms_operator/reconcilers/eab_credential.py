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
from kms.contract import READY, directory_url
from kms.resources.core import Secret
from kms.resources.credentials import CredentialStatus, EABCredential
from kms.resources.kinds import CREDENTIALS, SECRETS
from kms.resources.meta import condition, key_of
from kms.resources.profiles import CertificateProfile, NamespaceNames
from kms.resources.retained import is_reduced
from kms.resources.secret_names import (
    CA_CERTIFICATE,
    COMPONENT,
    DIRECTORY_URL,
    USER_CREDENTIAL,
)
from kms_operator.endpoints import trust_anchor
from kms_operator.indexes import KEY_ID_IN_USE, NAMESPACE
from kms_operator.objects import is_managed, is_owned_by, secret_changes, user_secret
from kms_operator.plan import (
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
    reread_interval,
    transition_events,
    with_refusals,
)
from kms_operator.reconcilers.client_namespaces import names_for, suspension
from kms_operator.reconcilers.eab_admission import Refused, admit, require_room
from kms_operator.reconcilers.eab_copies import (
    copies_of,
    copy_name,
    copy_of,
    is_claimed_by_another,
    kept_key,
    parse_key,
    verification_copy,
)
from kms_operator.reconcilers.eab_keys import BindingKey, InvalidKey, key_in, new_key
from kms_operator.reconcilers.rules_without_effect import (
    NOTHING_ALLOWED,
    left_by_credential,
    unknown_order_profiles,
    warnings,
)
from kms_operator.snapshot import Read, Snapshot

ISSUED = "Issued"
SUSPENDED = "Suspended"
EXPIRED = "Expired"
SECRET_EXISTS = "SecretExists"  # noqa: S105 - a reason
INVALID_SECRET = "InvalidSecret"  # noqa: S105 - a reason
KEY_NOT_DELIVERED = "KeyNotDelivered"
"""The server has a copy of the key, but the API server refused the Secret for users."""


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
            admit(credential, snapshot)
        except Refused:
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
        profile = admit(credential, snapshot)
        valid = _plan_key(credential, profile, snapshot, now=now, entropy=entropy)
        if copy_of(valid.key, profile, snapshot) is None and not copies_of(credential, snapshot):
            require_room(credential, snapshot)  # it was admitted because of a kept key, and has another one
    except Refused as refusal:
        copies = copies_of(credential, snapshot) if refusal.void else ()
        key_id = None if refusal.void else credential.status.key_id
        recheck_at = now + _recheck_interval(credential, snapshot) if refusal.recheck else None
        refused = Plan(delete=_manifests(copies), requeue_at=recheck_at)
        update = refusal.update

        def report_refused(refusals: Sequence[Refusal] = ()) -> Plan:
            """State why there is no key, and which copies the API server keeps."""
            stated, remaining = with_refusals(update, refusals), credential.status.key_id if refusals else key_id
            return _with_status(refused, credential, snapshot, (stated,), remaining, complete=not refusals, now=now)

        return replace(report_refused(), on_refusals=report_refused)
    expires = credential.spec.expires_at
    upcoming = expires if expires is not None and expires > now else None
    planned = Plan(
        delete=_manifests((*valid.stale, *_renamed_secrets(credential, snapshot))),
        apply=valid.apply,
        events=valid.events,
        requeue_at=earliest(upcoming, valid.requeue_at),
    )
    names, resolved = names_for(credential, profile, snapshot)
    usable, *warned = _usability(credential, profile, snapshot, now=now)
    release = snapshot.settings.namespace

    def report(refusals: Sequence[Refusal] = ()) -> Plan:
        """State the conditions, given what the API server has refused."""
        updates = (_refused(refusals, snapshot) or usable, *([resolved] if resolved else []), *warned)
        has_copy = not any(each.manifest.object.metadata.namespace == release for each in refusals)
        key_id = valid.key.key_id if has_copy else credential.status.key_id
        stated = replace(planned, events=()) if refusals else planned
        complete = not refusals
        return _with_status(stated, credential, snapshot, updates, key_id, names=names, complete=complete, now=now)

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
    return is_reduced(credential) and bool(copies_of(credential, snapshot))


def _recheck_interval(credential: EABCredential, snapshot: Snapshot) -> timedelta:
    """Return when to read the Secret again: the more Secrets of the namespace must be read, the later.

    Those with the operator's label are watched, so they need no reads.
    """
    namespace = credential.metadata.namespace
    read = sum(
        each.metadata.namespace == namespace and snapshot.index.get(SECRETS, (namespace, each.secret_name)) is None
        for each in snapshot.by_index(CREDENTIALS, NAMESPACE, namespace)
    )
    return reread_interval(read)


def _with_status(
    planned: Plan,
    credential: EABCredential,
    snapshot: Snapshot,
    updates: Sequence[ConditionUpdate],
    key_id: str | None,
    *,
    names: NamespaceNames | None = None,
    complete: bool = True,
    now: datetime,
) -> Plan:
    old, generation = credential.status.conditions, credential.metadata.generation
    status = CredentialStatus(
        observed_generation=carried_out(credential.status.observed_generation, generation, complete=complete),
        key_id=key_id,
        secret_name=credential.secret_name,
        accounts=snapshot.index.open_accounts(key_of(credential)),
        names=names,
        conditions=merge_conditions(old, updates, generation=generation, now=now),
    )
    events = (event for each in updates for event in transition_events(old, each))
    return replace(planned, status=status, events=(*events, *planned.events))


def _usability(
    credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot, *, now: datetime
) -> tuple[ConditionUpdate, ...]:
    """Return Ready, and Warnings if a part of the credential has no effect."""
    left = left_by_credential(credential, profile, snapshot)
    messages = [message for each in left for message in each.without_effect]
    warned = warnings((*messages, *unknown_order_profiles(credential, profile)))
    if stopped := _stop(credential, profile, now=now):
        return stopped, *warned
    for each in left:
        if each.objection is not None:
            return not_ready(NOTHING_ALLOWED, each.objection), *warned
    return ready(ISSUED, f"Secret {credential.secret_name} holds the key identifier and the key"), *warned


def _stop(credential: EABCredential, profile: CertificateProfile, *, now: datetime) -> ConditionUpdate | None:
    """Return what stops clients; None if nothing does. The server enforces the same from the same fields."""
    expires = credential.spec.expires_at
    if expires is not None and expires <= now:
        return not_ready(
            EXPIRED,
            f"expired at {expires:%Y-%m-%dT%H:%M:%SZ}; opens no new accounts, existing ones stay valid; to prolong it,"
            " change spec.expiresAt",
        )
    if credential.spec.suspended:
        return not_ready(
            SUSPENDED, "opens no new accounts, and its accounts may not order, until spec.suspended is false"
        )
    return suspension(credential, profile)


def _plan_key(
    credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot, *, now: datetime, entropy: Entropy
) -> _ValidKey:
    """Return the valid key. Raises Refused if there can be none."""
    if (denial := snapshot.denial(SECRETS, (credential.metadata.namespace, credential.secret_name))) is not None:
        message = f"Secret {credential.secret_name} cannot be read: {denial}"
        raise Refused(denial.reason, message, void=False)
    secret = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    copies = copies_of(credential, snapshot)
    if secret is None and (undelivered := _undelivered_key(credential, profile, copies)) is not None:
        return _ValidKey(
            undelivered,
            _secrets_to_write(credential, profile, undelivered, snapshot),
            _stale_copies(copies, undelivered, profile),
        )
    if secret is None:
        if not copies and (kept := kept_key(credential, profile, snapshot)) is not None:
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
        copy = secret_changes(copy_of(key, profile, snapshot), verification_copy(credential, profile, key, snapshot))
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
    keys = (key for each in copies if (key := parse_key(each)) and each.metadata.name == copy_name(key, profile))
    return next((each for each in keys if each.key_id == credential.status.key_id), None)


def _read_user_key(
    credential: EABCredential, profile: CertificateProfile, secret: Secret, snapshot: Snapshot
) -> BindingKey:
    """Return the key of a Secret that a user has made. Raises Refused if it cannot be used."""
    name = secret.metadata.name
    if is_managed(secret):
        message = f"Secret {name} belongs to another resource; choose another name in spec.secretName"
        raise Refused(SECRET_EXISTS, message, void=True, recheck=True)
    try:
        key = key_in(secret)
    except InvalidKey as error:
        message = f"Secret {name} was not made by the operator and cannot be used: {error}"
        raise Refused(INVALID_SECRET, message, void=True, recheck=True) from error
    if is_claimed_by_another(key, credential, profile, snapshot):
        message = (
            f"another credential of CertificateProfile {profile.metadata.namespace}/{profile.metadata.name} uses the"
            f" key identifier {key.key_id!r}; put another one into Secret {name}"
        )
        raise Refused(KEY_ID_IN_USE, message, void=True, recheck=True)
    return key


def _recover_key(
    credential: EABCredential, profile: CertificateProfile, secret: Secret, snapshot: Snapshot, *, entropy: Entropy
) -> tuple[BindingKey, tuple[Event, ...]]:
    """Return the key of a Secret that the operator made. The copy is authoritative: users cannot write to it."""
    name = secret.metadata.name
    present = parse_key(secret)
    held = [
        key
        for copy in copies_of(credential, snapshot)
        if (key := parse_key(copy)) is not None and copy.metadata.name == copy_name(key, profile)
    ]
    if present is not None and present in held:
        return present, ()
    if held:
        key = next((each for each in held if each.key_id == credential.status.key_id), held[0])
        return key, (Event("Repaired", f"Secret {name} was changed; the operator has restored the key"),)
    if present is not None and not is_claimed_by_another(present, credential, profile, snapshot):
        return present, ()
    return new_key(entropy), (Event("Rotated", f"Secret {name} lost its key; the operator has made a new one"),)


def _secrets_to_write(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> tuple[Manifest, ...]:
    """Return what to write: the copy first, then the Secret for users."""
    existing = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    return (
        *secret_changes(copy_of(key, profile, snapshot), verification_copy(credential, profile, key, snapshot)),
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


def _stale_copies(copies: tuple[Secret, ...], key: BindingKey, profile: CertificateProfile) -> tuple[Secret, ...]:
    return tuple(each for each in copies if each.metadata.name != copy_name(key, profile))


def _renamed_secrets(credential: EABCredential, snapshot: Snapshot) -> tuple[Secret, ...]:
    """Return the Secrets under earlier values of spec.secretName."""
    return tuple(
        each
        for each in snapshot.owned_by(SECRETS, credential)
        if each.metadata.labels.get(COMPONENT) == USER_CREDENTIAL
        and is_owned_by(each, credential)
        and each.metadata.name != credential.secret_name
    )


def _is_ours(secret: Secret, credential: EABCredential) -> bool:
    """Whether the operator made the Secret for this credential, even if its owner reference was removed."""
    orphaned = not secret.metadata.owner_references and secret.metadata.labels.get(COMPONENT) == USER_CREDENTIAL
    return is_owned_by(secret, credential) or (orphaned and is_managed(secret))


def _manifests(secrets: Iterable[Secret]) -> tuple[Manifest, ...]:
    return tuple(Manifest(SECRETS, each) for each in secrets)
