"""Rules that allow nothing, and configurations that can never issue: what policies, profiles and credentials report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kms.contract import WARNINGS
from kms.pki.constraints import Constraints, constraints_of
from kms.pki.issuable import (
    Issuable,
    issuable_by_narrowing,
    issuable_by_policy,
    issuable_by_profile,
    shorten,
)
from kms.pki.policy import Narrowing, Policy
from kms.resources.authorities import CertificateAuthority
from kms.resources.client_namespaces import PATH, UnknownNamespace, clients_of, names_of, narrowing_of, resolve
from kms.resources.compile import InvalidRules, compile_narrowing, compile_policy
from kms.resources.credentials import EABCredential, NameRules
from kms.resources.kinds import NAMESPACES
from kms.resources.policies import DNSNameRules, ValueRules
from kms.resources.profiles import AcmeEnrollment, CertificateProfile, NamespaceNames
from kms.resources.retained import is_reduced
from kms_operator.plan import ConditionUpdate
from kms_operator.snapshot import Snapshot

NOTHING_ALLOWED = "NothingAllowed"
RULES_WITHOUT_EFFECT = "RulesWithoutEffect"

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def warnings(messages: Sequence[str], *, reason: str = RULES_WITHOUT_EFFECT) -> tuple[ConditionUpdate, ...]:
    """Return the condition Warnings with these messages; nothing if there are none."""
    if not messages:
        return ()
    return (ConditionUpdate("True", reason, shorten(tuple(dict.fromkeys(messages))), type=WARNINGS),)


def left_by_profile(acme: AcmeEnrollment, rules: Policy, authority: CertificateAuthority | None) -> Issuable:
    """Return what policy, challenges and CA leave. What the policy itself forbids is not among its messages."""
    by_policy = issuable_by_policy(rules)
    if by_policy.objection is not None:
        objection = f"policy {rules.name} allows nothing: {by_policy.objection}"
        return Issuable(by_policy.names, by_policy.addresses, objection=objection)
    challenges = acme.challenges if acme.validates_ownership else None
    return issuable_by_profile(by_policy, rules, challenges=challenges, constraints=_constraints(authority))


def warnings_of_profile(profile: CertificateProfile, left: Issuable) -> tuple[str, ...]:
    """Return what of the profile has no effect: under its policy, and the names that it allows namespaces."""
    acme = profile.spec.enrollment.acme
    messages = list(left.without_effect)
    if acme is None or left.objection is not None:
        return tuple(messages)
    rule = acme.allowed_namespaces
    exceptions = ((each.names, f"{PATH}.settings[{i}].names") for i, each in enumerate(rule.settings))
    for names, path in ((rule.names, f"{PATH}.names"), *exceptions):
        if names is not None:
            narrowed = issuable_by_narrowing(left, _any_namespace(names, profile.metadata.name, path))
            messages += _with_placeholders(narrowed.without_effect, names)
            if narrowed.objection is not None and not narrowed.without_effect:
                messages.append(narrowed.objection)
    return tuple(messages)


def left_by_credential(
    credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot
) -> tuple[Issuable, ...]:
    """Return what credential and profile leave its clients; nothing if neither narrows, or the profile has no rules."""
    acme, names = profile.spec.enrollment.acme, credential.spec.names
    namespace = profile.metadata.namespace
    policy = snapshot.policy(profile.spec.policy_ref, namespace=namespace)
    if acme is None or policy is None or is_reduced(policy) or is_reduced(credential):
        return ()
    granted = _granted(credential, profile, snapshot)
    if names is None and granted is None:
        return ()
    try:
        own = compile_narrowing(names, f"{credential.metadata.namespace}/{credential.metadata.name}") if names else None
        authority = snapshot.authority(profile.spec.issuer_ref, namespace=namespace)
        left = left_by_profile(acme, compile_policy(policy), authority)
    except InvalidRules:
        return ()  # the policy says what is wrong
    if left.objection is not None:
        return ()  # the profile says it
    if granted is not None:
        left = issuable_by_narrowing(left, granted)
        if left.objection is not None:
            clients = clients_of(credential, profile_namespace=namespace).namespace
            holder = f"CertificateProfile {namespace}/{profile.metadata.name}"
            objection = f"{holder} allows the clients of namespace {clients} no name: {left.objection}"
            return (Issuable(left.names, left.addresses, objection=objection),)
    return (issuable_by_narrowing(left, own),) if own is not None else ()


def unknown_order_profiles(credential: EABCredential, profile: CertificateProfile) -> tuple[str, ...]:
    """Return which order profiles the credential entitles its accounts to that the directory does not have."""
    acme = profile.spec.enrollment.acme
    offered = {each.name for each in acme.profiles} if acme is not None else set()
    where = f"CertificateProfile {profile.metadata.namespace}/{profile.metadata.name}"
    return tuple(
        f'spec.profiles: "{each}" is no order profile of {where} (spec.enrollment.acme.profiles)'
        for each in credential.spec.profiles or ()
        if each not in offered
    )


def _granted(credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot) -> Narrowing | None:
    """Return the names that the profile allows the clients of the credential, as far as they are known."""
    acme = profile.spec.enrollment.acme
    clients = clients_of(credential, profile_namespace=profile.metadata.namespace)
    found = names_of(acme.allowed_namespaces, clients) if acme is not None else None
    if found is None:
        return None
    names, path = found
    namespace = snapshot.get(NAMESPACES, ("", clients.namespace))
    try:
        resolved = resolve(names, clients, namespace.metadata.labels if namespace else None, path=path)
        return narrowing_of(resolved, profile.metadata.name, path=path)
    except (InvalidRules, UnknownNamespace):
        return None  # the condition NamesResolved says it


def _any_namespace(names: NamespaceNames, profile: str, path: str) -> Narrowing:
    """Return the names with any value for each placeholder. Raises InvalidRules."""
    dns, addresses = names.dns_names, names.ip_addresses
    depends = addresses is not None and any(map(_PLACEHOLDER.search, addresses.allowed))
    allowed = tuple(dict.fromkeys(_PLACEHOLDER.sub("*", each) for each in dns.allowed)) if dns is not None else ()
    rules = NameRules(
        dns_names=DNSNameRules(allowed=allowed) if dns is not None else None,
        ip_addresses=ValueRules(allowed=addresses.allowed) if addresses is not None and not depends else None,
    )
    return compile_narrowing(rules, profile, holder="profile", path=path)


def _with_placeholders(messages: Sequence[str], names: NamespaceNames) -> Iterator[str]:
    """Return the messages about `_any_namespace` with the patterns as the user has written them."""
    written = [each for each in (names.dns_names.allowed if names.dns_names is not None else ()) if "{" in each]
    for message in messages:
        meant = [each for each in written if f'"{_PLACEHOLDER.sub("*", each)}"' in message]
        yield from (message.replace(f'"{_PLACEHOLDER.sub("*", each)}"', f'"{each}"') for each in meant)
        if not meant:
            yield message


def _constraints(authority: CertificateAuthority | None) -> tuple[Constraints, ...]:
    if authority is None or not authority.status.chain:
        return ()
    try:
        return constraints_of(authority.status.chain, authority=authority.title)
    except ValueError:
        return ()  # the reconciler of the CA writes the status anew
