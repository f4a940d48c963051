"""Reports what the owner of a profile allows the clients of each namespace. The server decides by the same rules."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from kms.resources.client_namespaces import UnknownNamespace, clients_of, names_of, resolve
from kms.resources.compile import InvalidRules
from kms.resources.credentials import EABCredential
from kms.resources.kinds import NAMESPACES
from kms.resources.profiles import CertificateProfile, NamespaceNames
from kms_operator.plan import ConditionUpdate, Event, not_ready
from kms_operator.snapshot import Snapshot

NAMES_RESOLVED = "NamesResolved"
NAMESPACES_SEPARATED = "NamespacesSeparated"
NAMESPACE_SUSPENDED = "NamespaceSuspended"
RESUMED = "NamespaceResumed"
UNUSABLE_LABELS = "UnusableLabels"
UNKNOWN_NAMESPACE = "UnknownNamespace"
INVALID_RULES = "InvalidRules"
SHARED = "SharedClusterIssuer"
SEPARATED = "Separated"

SHOWN = 10
"""Patterns of each type in the status of a credential."""
EXPLAINED = 3
"""Templates that a condition explains."""


def names_for(
    credential: EABCredential, profile: CertificateProfile, snapshot: Snapshot
) -> tuple[NamespaceNames | None, ConditionUpdate | None]:
    """Return the names that the profile allows the credential's clients, and the condition that some are missing.

    Both are None if the profile does not narrow by namespace.
    """
    acme = profile.spec.enrollment.acme
    clients = clients_of(credential, profile_namespace=profile.metadata.namespace)
    found = names_of(acme.allowed_namespaces, clients) if acme is not None else None
    if found is None:
        return None, None
    names, path = found
    namespace = snapshot.get(NAMESPACES, ("", clients.namespace))
    try:
        resolved = resolve(names, clients, namespace.metadata.labels if namespace else None, path=path)
    except InvalidRules as error:
        return None, _unresolved(INVALID_RULES, f"{error.field}: {error.message}")
    except UnknownNamespace as error:
        return None, _unresolved(UNKNOWN_NAMESPACE, str(error))
    shown = _shorten(resolved.names)
    if resolved.unresolved:
        more = len(resolved.unresolved) - EXPLAINED
        reasons = [*resolved.unresolved[:EXPLAINED], *([f"and {more} more"] if more > 0 else [])]
        return shown, _unresolved(UNUSABLE_LABELS, "; ".join(reasons))
    first = "the names in status.names" if shown == resolved.names else f"names; status.names has the first {SHOWN}"
    message = f"the profile allows namespace {clients.namespace} {first}"
    return shown, ConditionUpdate("True", NAMES_RESOLVED, message, NAMES_RESOLVED)


def suspension(credential: EABCredential, profile: CertificateProfile) -> ConditionUpdate | None:
    """Return Ready if the profile suspends the namespace of the credential's clients; None if it does not."""
    acme = profile.spec.enrollment.acme
    namespace = clients_of(credential, profile_namespace=profile.metadata.namespace).namespace
    settings = acme.allowed_namespaces.settings_of(namespace) if acme is not None else None
    if settings is None or not settings.suspended:
        return None
    return not_ready(
        NAMESPACE_SUSPENDED,
        f"CertificateProfile {profile.metadata.namespace}/{profile.metadata.name} suspends the clients of"
        f" namespace {namespace} (spec.enrollment.acme.allowedNamespaces.settings):"
        " they open no accounts, and their accounts may not order",
    )


def suspended_namespaces(profile: CertificateProfile) -> tuple[str, ...]:
    """Return the namespaces that the profile suspends, sorted."""
    acme = profile.spec.enrollment.acme
    settings = acme.allowed_namespaces.settings if acme is not None else ()
    return tuple(sorted(each.namespace for each in settings if each.suspended))


def suspension_events(before: Sequence[str], after: Sequence[str]) -> tuple[Event, ...]:
    """Return the Events for namespaces whose suspension began or ended."""
    began = ", ".join(each for each in after if each not in before)
    ended = ", ".join(each for each in before if each not in after)
    return (
        *([Event(NAMESPACE_SUSPENDED, f"clients are suspended in namespaces: {began}", "Warning")] if began else []),
        *([Event(RESUMED, f"clients are no longer suspended in namespaces: {ended}")] if ended else []),
    )


def separation(profile: CertificateProfile) -> ConditionUpdate | None:
    """Return the condition that warns of a ClusterIssuer; None without issuers."""
    section = profile.cert_manager
    if section is None:
        return None
    if section.cluster_issuer is None:
        return ConditionUpdate("True", SEPARATED, "each namespace has an Issuer and account", NAMESPACES_SEPARATED)
    message = (
        f"all namespaces share the account of ClusterIssuer {section.cluster_issuer.name}: no name belongs to one of"
        " them, and allowedNamespaces cannot suspend or narrow one of them; use certManager.issuers instead of"
        " clusterIssuer to separate them"
    )
    return ConditionUpdate("False", SHARED, message, NAMESPACES_SEPARATED)


def _shorten(names: NamespaceNames) -> NamespaceNames:
    """Return the first names: thousands of credentials are in the memory of both programs."""
    dns, addresses = names.dns_names, names.ip_addresses
    return NamespaceNames(
        dns_names=replace(dns, allowed=dns.allowed[:SHOWN]) if dns is not None else None,
        ip_addresses=replace(addresses, allowed=addresses.allowed[:SHOWN]) if addresses is not None else None,
    )


def _unresolved(reason: str, message: str) -> ConditionUpdate:
    return ConditionUpdate("False", reason, message, NAMES_RESOLVED)
