"""Which EABCredentials get a key: by their profile, their namespace, their names and the limits of keys."""

from __future__ import annotations

from kms.contract import READY, UNREADABLE
from kms.resources.compile import InvalidRules, RulesTooCostly, compile_narrowing
from kms.resources.credentials import EABCredential
from kms.resources.kinds import NAMESPACES, PROFILES
from kms.resources.meta import condition
from kms.resources.profiles import CertificateProfile
from kms.resources.retained import CREDENTIAL_LIMIT_REACHED, SECRET_LIMIT_REACHED, is_reduced
from kms_operator.plan import not_ready
from kms_operator.reconcilers.client_namespaces import INVALID_RULES
from kms_operator.reconcilers.eab_copies import copies_of, copy_name, kept_key, parse_key
from kms_operator.reconcilers.placement import selects
from kms_operator.shares import credential_limit_reached, secret_limit_reached
from kms_operator.snapshot import Snapshot

PROFILE_NOT_FOUND = "ProfileNotFound"
PROFILE_NOT_READY = "ProfileNotReady"
BINDING_DISABLED = "ExternalAccountBindingDisabled"
NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
CLIENT_NAMESPACE_NOT_ALLOWED = "ClientNamespaceNotAllowed"
RULES_TOO_COSTLY = "RulesTooCostly"


class Refused(Exception):
    """Why there is no valid key. `void`: existing copies must be deleted.

    `recheck`: the reason lies in a Secret that is not watched, so it must be read again.
    """

    def __init__(self, reason: str, message: str, *, void: bool, recheck: bool = False) -> None:
        super().__init__(message)
        self.update = not_ready(reason, message)
        self.void = void
        self.recheck = recheck


def admit(credential: EABCredential, snapshot: Snapshot) -> CertificateProfile:
    """Return the profile. Raises Refused if the credential gets no key, whatever its Secret holds.

    That depends on watched objects only, so that a credential that is refused costs neither reads nor a timer.
    """
    _check_names(credential)
    profile = _get_profile(credential, snapshot)
    _check_limits(credential, profile, snapshot)
    return profile


def _repeat_invalid_rules(credential: EABCredential) -> None:
    """Raise Refused if the names of this version were invalid: the cache no longer has them."""
    found = condition(credential.status.conditions, READY)
    if found is not None and found.reason in {INVALID_RULES, RULES_TOO_COSTLY}:
        raise Refused(found.reason, found.message, void=found.reason == INVALID_RULES)


def _check_limits(credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot) -> None:
    """Raise Refused if the credential has no copy on the profile yet, and a limit leaves no room for one."""
    acme = profile.spec.enrollment.acme
    copies = copies_of(credential, snapshot)
    if acme is None or any(
        each.metadata.name == copy_name(key, profile) for each in copies if (key := parse_key(each)) is not None
    ):
        return
    if message := credential_limit_reached(credential, acme, snapshot):
        raise Refused(CREDENTIAL_LIMIT_REACHED, message, void=True)
    if not copies and kept_key(credential, profile, snapshot) is None:
        require_room(credential, snapshot)


def require_room(credential: EABCredential, snapshot: Snapshot) -> None:
    """Raise Refused if the namespace of the credential may have no further key."""
    if message := secret_limit_reached(credential.metadata.namespace, snapshot):
        raise Refused(SECRET_LIMIT_REACHED, message, void=True)


def _check_names(credential: EABCredential) -> None:
    """Raise Refused if the names that narrow the policy are invalid: the credential would allow more than intended."""
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
        raise Refused(reason, f"{error.field}: {error.message}", void=not costly) from error


def _check_client_namespace(credential: EABCredential, profile_namespace: str) -> None:
    """Raise Refused if the credential names another namespace than its own, and is not beside its profile."""
    home, named = credential.metadata.namespace, credential.spec.client_namespace
    if named is not None and home not in (named, profile_namespace):
        message = (
            f"spec.clientNamespace: only a credential in namespace {profile_namespace}, where its profile is, may be"
            f" for clients of another namespace than its own; omit the field, or write {home}"
        )
        raise Refused(CLIENT_NAMESPACE_NOT_ALLOWED, message, void=True)


def _get_profile(credential: EABCredential, snapshot: Snapshot) -> CertificateProfile:
    namespace, name = credential.profile_key
    profile = snapshot.profile((namespace, name))
    if profile is None and (unreadable := snapshot.unreadable(PROFILES, (namespace, name))) is not None:
        message = f"CertificateProfile {namespace}/{name} cannot be read: {unreadable}"
        raise Refused(UNREADABLE, message, void=False)
    if profile is None:
        message = f"CertificateProfile {namespace}/{name} does not exist"
        if credential.spec.profile_ref.namespace is None:
            message += "; if it is in another namespace, set spec.profileRef.namespace"
        raise Refused(PROFILE_NOT_FOUND, message, void=False)
    if is_reduced(profile):
        # The cache has not got its settings, so they void no key.
        message = f"CertificateProfile {namespace}/{name} is not in force; see its condition Ready"
        raise Refused(PROFILE_NOT_READY, message, void=False)
    acme = profile.spec.enrollment.acme
    if acme is None or acme.external_account_binding == "Disabled":
        message = f"CertificateProfile {namespace}/{name} does not use external account binding"
        raise Refused(BINDING_DISABLED, message, void=False)
    home = credential.metadata.namespace
    _check_client_namespace(credential, namespace)
    if home != namespace and not selects(acme.allowed_namespaces, home, home=namespace, snapshot=snapshot):
        message = (
            f"CertificateProfile {namespace}/{name} does not allow credentials in namespace {home}"
            " (spec.enrollment.acme.allowedNamespaces)"
        )
        if acme.allowed_namespaces.from_ == "Selector" and snapshot.get(NAMESPACES, ("", home)) is None:
            message += "; the labels of the namespace are not known yet"
        raise Refused(NAMESPACE_NOT_ALLOWED, message, void=True)
    return profile
