"""EABCredential: a key for clients, and the server's copy of it.

Users find the key in a Secret beside the credential. The server, which may read Secrets in the release namespace only,
finds a verification copy there, under a name that follows from what a client presents. The copy is written first: a key
that a user can see is a key that works. Without a copy a key is void, so the copy is what the rules guard:

* no copy for a credential in a namespace that the profile does not allow;
* one copy for a key identifier on a profile: who claimed it first keeps it;
* the user's Secret is gone: the old copy goes at once, then a new key is drawn (rotation);
* a Secret that a user has made is never written to, only read and checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kms.clock import Entropy
from kms.contract import directory_url
from kms.resources.compile import InvalidRules, compiled_narrowing
from kms.resources.core import Secret
from kms.resources.credentials import CredentialStatus, EABCredential
from kms.resources.kinds import CREDENTIALS
from kms.resources.profiles import CertificateProfile
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
from kms_operator.objects import internal_secret, user_secret
from kms_operator.plan import (
    ConditionUpdate,
    Event,
    Outcome,
    earliest,
    merge_conditions,
    not_ready,
    ready,
    secrets_to_write,
    transition_events,
)
from kms_operator.reconcilers.eab_keys import BindingKey, InvalidKey, key_in, new_key
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Key, Snapshot, is_managed, is_owned_by

ISSUED = "Issued"
SUSPENDED = "Suspended"
EXPIRED = "Expired"
PROFILE_NOT_FOUND = "ProfileNotFound"
BINDING_DISABLED = "ExternalAccountBindingDisabled"
NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
SECRET_EXISTS = "SecretExists"  # noqa: S105 - a reason
INVALID_SECRET = "InvalidSecret"  # noqa: S105 - a reason
KEY_ID_IN_USE = "KeyIDInUse"
INVALID_RULES = "InvalidRules"

RESYNC = timedelta(seconds=60)
"""How often what we do not watch is looked at: Secrets without our label."""


class _Refused(Exception):
    """There is no key in force. `void`: copies that exist must go."""

    def __init__(self, reason: str, message: str, *, void: bool) -> None:
        super().__init__(message)
        self.update = not_ready(reason, message)
        self.void = void


@dataclass(frozen=True, slots=True)
class _Keyed:
    """The key in force, what to write for it, and what is worth telling."""

    key: BindingKey
    apply: tuple[Secret, ...]
    stale: tuple[Secret, ...] = ()
    events: tuple[Event, ...] = ()
    again: datetime | None = None


def secrets(credential: EABCredential, settings: OperatorSettings) -> Iterable[Key]:
    """The Secrets whose absence has to be certain."""
    yield credential.metadata.namespace, credential.secret_name
    yield settings.namespace, settings.serving_secret


def reconcile(credential: EABCredential, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Outcome:
    """Make, keep, repair, rotate or void the key."""
    try:
        _check_names(credential)
        profile = _profile(credential, snapshot)
        keyed = _keyed(credential, profile, snapshot, now=now, entropy=entropy)
    except _Refused as refusal:
        copies = _copies(credential, snapshot) if refusal.void else ()
        key_id = None if refusal.void else credential.status.key_id
        outcome = Outcome(delete=copies, again=now + RESYNC)
        return _concluded(credential, snapshot, refusal.update, key_id, outcome, now=now)
    expires = credential.spec.expires_at
    upcoming = expires if expires is not None and expires > now else None
    outcome = Outcome(
        delete=(*keyed.stale, *_left_behind(credential, snapshot)),
        apply=keyed.apply,
        events=keyed.events,
        again=earliest(upcoming, keyed.again),
    )
    return _concluded(credential, snapshot, _standing(credential, now=now), keyed.key.key_id, outcome, now=now)


def _concluded(
    credential: EABCredential,
    snapshot: Snapshot,
    update: ConditionUpdate,
    key_id: str | None,
    outcome: Outcome,
    *,
    now: datetime,
) -> Outcome:
    old = credential.status.conditions
    status = CredentialStatus(
        observed_generation=credential.metadata.generation,
        key_id=key_id,
        secret_name=credential.secret_name,
        accounts=snapshot.accounts.get(credential.metadata.uid, 0),
        conditions=merge_conditions(old, (update,), generation=credential.metadata.generation, now=now),
    )
    events = (*transition_events(old, update), *outcome.events)
    return Outcome(outcome.delete, outcome.apply, status, events, outcome.again)


def _standing(credential: EABCredential, *, now: datetime) -> ConditionUpdate:
    """What the key in force is good for; the server enforces the same from the same fields."""
    expires = credential.spec.expires_at
    if expires is not None and expires <= now:
        return not_ready(EXPIRED, f"expired at {expires:%Y-%m-%dT%H:%M:%SZ}; no new accounts, existing ones stay")
    if credential.spec.suspended:
        return not_ready(SUSPENDED, "no new accounts, and its accounts may not order, until spec.suspended is false")
    return ready(ISSUED, f"Secret {credential.secret_name} holds the key identifier and the key")


def _check_names(credential: EABCredential) -> None:
    """What narrows the policy must make sense, or the credential would be worth more than was meant."""
    if credential.spec.names is None:
        return
    try:
        compiled_narrowing(credential.spec.names, credential.metadata.name)
    except InvalidRules as error:
        raise _Refused(INVALID_RULES, f"{error.field}: {error.message}", void=True) from error


def _profile(credential: EABCredential, snapshot: Snapshot) -> CertificateProfile:
    namespace, name = credential.profile_key
    profile = snapshot.profile((namespace, name))
    if profile is None:
        raise _Refused(PROFILE_NOT_FOUND, f"CertificateProfile {namespace}/{name} does not exist", void=False)
    acme = profile.spec.enrollment.acme
    if acme is None or acme.external_account_binding == "Disabled":
        message = f"CertificateProfile {namespace}/{name} does not use external account binding"
        raise _Refused(BINDING_DISABLED, message, void=False)
    home = credential.metadata.namespace
    if not snapshot.chooses(acme.allowed_namespaces, home, of=namespace):
        message = (
            f"CertificateProfile {namespace}/{name} does not allow credentials in namespace {home}"
            " (spec.enrollment.acme.allowedNamespaces)"
        )
        raise _Refused(NAMESPACE_NOT_ALLOWED, message, void=True)
    return profile


def _keyed(
    credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot, *, now: datetime, entropy: Entropy
) -> _Keyed:
    """The key in force. Raises _Refused where there can be none."""
    secret = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    copies = _copies(credential, snapshot)
    if secret is None:
        key = new_key(entropy)
        rotated = credential.status.key_id is not None or bool(copies)
        event = Event("Rotated", f"Secret {credential.secret_name} was deleted: the old key is void, a new one is made")
        return _Keyed(key, _written(credential, profile, key, snapshot), copies, (event,) if rotated else ())
    if not _is_ours(secret, credential):
        key = _brought(credential, profile, secret, snapshot)
        copy = secrets_to_write(_copy_of(key, profile, snapshot), verification_copy(credential, profile, key, snapshot))
        return _Keyed(key, copy, _others(copies, key, profile), again=now + RESYNC)
    key, events = _kept(credential, profile, secret, snapshot, entropy=entropy)
    return _Keyed(key, _written(credential, profile, key, snapshot), _others(copies, key, profile), events)


def _brought(credential: EABCredential, profile: CertificateProfile, secret: Secret, snapshot: Snapshot) -> BindingKey:
    """The key that a user has put there beforehand."""
    name = secret.metadata.name
    if is_managed(secret):
        message = f"Secret {name} belongs to another resource; choose another name in spec.secretName"
        raise _Refused(SECRET_EXISTS, message, void=True)
    try:
        key = key_in(secret)
    except InvalidKey as error:
        message = f"Secret {name} exists and is left alone, but {error}"
        raise _Refused(INVALID_SECRET, message, void=True) from error
    if _claimed_by_another(key, credential, profile, snapshot):
        message = (
            f"another credential of CertificateProfile {profile.metadata.namespace}/{profile.metadata.name} uses the"
            f" key identifier {key.key_id!r}; put another one into Secret {name}"
        )
        raise _Refused(KEY_ID_IN_USE, message, void=True)
    return key


def _claimed_by_another(
    key: BindingKey, credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot
) -> bool:
    """Whether another credential that still exists holds the copy: who comes later must not void its key."""
    copy = _copy_of(key, profile, snapshot)
    if copy is None:
        return False
    holder = copy.metadata.labels.get(OWNER_UID)
    return holder != credential.metadata.uid and any(
        each.metadata.uid == holder for each in snapshot.credentials.values()
    )


def _kept(
    credential: EABCredential, profile: CertificateProfile, secret: Secret, snapshot: Snapshot, *, entropy: Entropy
) -> tuple[BindingKey, tuple[Event, ...]]:
    """The key of a Secret that we made. The copy is the truth: users cannot write to it."""
    name = secret.metadata.name
    present = _readable(secret)
    held = [
        key
        for copy in _copies(credential, snapshot)
        if (key := _readable(copy)) is not None and copy.metadata.name == _named(key, profile)
    ]
    if present is not None and present in held:
        return present, ()
    if held:
        key = next((each for each in held if each.key_id == credential.status.key_id), held[0])
        return key, (Event("Repaired", f"Secret {name} was changed; it holds the key again"),)
    if present is not None and not _claimed_by_another(present, credential, profile, snapshot):
        return present, ()
    return new_key(entropy), (Event("Rotated", f"Secret {name} lost its key; a new one is made"),)


def _written(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> tuple[Secret, ...]:
    """The copy first, then the user's Secret: what is wrong or missing of them."""
    existing = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    return (
        *secrets_to_write(_copy_of(key, profile, snapshot), verification_copy(credential, profile, key, snapshot)),
        *secrets_to_write(existing, credential_secret(credential, profile, key, snapshot)),
    )


def credential_secret(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> Secret:
    """What a client needs: key identifier, key, directory and what to trust there."""
    url = directory_url(snapshot.settings.external_url, profile.metadata.namespace, profile.metadata.name)
    anchor = trust_anchor(snapshot)
    data = {**key.data, DIRECTORY_URL: url.encode(), **({CA_CERTIFICATE: anchor} if anchor else {})}
    return user_secret(credential.secret_name, component=USER_CREDENTIAL, owner=credential, kind=CREDENTIALS, data=data)


def verification_copy(
    credential: EABCredential, profile: CertificateProfile, key: BindingKey, snapshot: Snapshot
) -> Secret:
    """What the server needs, where it may read."""
    return internal_secret(
        snapshot.settings.namespace,
        _named(key, profile),
        component=VERIFICATION_KEY,
        owner=credential,
        kind=CREDENTIALS,
        data=key.data,
    )


def _copies(credential: EABCredential, snapshot: Snapshot) -> tuple[Secret, ...]:
    return tuple(
        each for each in snapshot.internal_of(credential) if each.metadata.labels.get(COMPONENT) == VERIFICATION_KEY
    )


def _others(copies: tuple[Secret, ...], key: BindingKey, profile: CertificateProfile) -> tuple[Secret, ...]:
    return tuple(each for each in copies if each.metadata.name != _named(key, profile))


def _left_behind(credential: EABCredential, snapshot: Snapshot) -> tuple[Secret, ...]:
    """Secrets under names that spec.secretName had before."""
    return tuple(
        each
        for each in snapshot.secrets.values()
        if each.metadata.labels.get(COMPONENT) == USER_CREDENTIAL
        and is_owned_by(each, credential)
        and each.metadata.name != credential.secret_name
    )


def _copy_of(key: BindingKey, profile: CertificateProfile, snapshot: Snapshot) -> Secret | None:
    return snapshot.internal(_named(key, profile))


def _named(key: BindingKey, profile: CertificateProfile) -> str:
    return verification_key_name(profile.metadata.namespace, profile.metadata.name, key.key_id)


def _is_ours(secret: Secret, credential: EABCredential) -> bool:
    """Whether we made the Secret for this credential, even if somebody has removed its owner since."""
    orphaned = not secret.metadata.owner_references and secret.metadata.labels.get(COMPONENT) == USER_CREDENTIAL
    return is_owned_by(secret, credential) or (orphaned and is_managed(secret))


def _readable(secret: Secret) -> BindingKey | None:
    try:
        return key_in(secret)
    except InvalidKey:
        return None
