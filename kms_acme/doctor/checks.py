"""The checks. Pure: a snapshot in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509

from kms.contract import READY, WAITING_FOR_CERTIFICATE, WARNINGS
from kms.pki.policy import unlisted_names
from kms.resources.compile import InvalidRules, compile_policy
from kms.resources.credentials import EABCredential
from kms.resources.kept import kept_until
from kms.resources.meta import Condition, condition
from kms.resources.secret_names import COMPONENT, OWNER, OWNER_UID, SIGNING_KEY, VERIFICATION_KEY
from kms_acme.doctor.findings import Finding, Level
from kms_acme.doctor.snapshot import Definition, Snapshot

SOON = timedelta(days=30)
"""A CA that ends within this time is worth a warning; so is the last tenth of shorter lifetimes."""
UNUSED = timedelta(days=90)
"""How old a credential is that nobody has used and that is worth a note."""
SKEW = timedelta(minutes=5)
"""How far clocks may differ: the server tolerates as much."""
_ORDER: Mapping[Level, int] = {"error": 0, "warning": 1, "note": 2}


def examine(snapshot: Snapshot, *, now: datetime) -> tuple[Finding, ...]:
    """All findings, errors first."""
    found = [
        *_kinds(snapshot),
        *_rights(snapshot),
        *_leases(snapshot, now=now),
        *_conditions(snapshot),
        *_reachability(snapshot),
        *_ends(snapshot, now=now),
        *_orphans(snapshot, now=now),
        *_credentials(snapshot, now=now),
        *_policies(snapshot),
        *_blind_spots(snapshot),
    ]
    return tuple(sorted(found, key=lambda each: _ORDER[each.level]))


def _kinds(snapshot: Snapshot) -> Iterator[Finding]:
    present = {each.metadata.name: each for each in snapshot.definitions}
    for wanted in snapshot.wanted:
        name = f"CustomResourceDefinition {wanted.metadata.name}"
        found = present.get(wanted.metadata.name)
        if found is None:
            if snapshot.definitions:
                yield Finding(
                    "error", name, "does not exist", "The programs cannot work without it.", "kubectl apply -f crds/"
                )
            continue
        missing = sorted(_fields(wanted) - _fields(found))
        if missing:
            more = f" and {len(missing) - 1} more fields" if len(missing) > 1 else ""
            why = "The API server drops fields that it does not know, silently."
            yield Finding(
                "error", name, f"is older than this program: it lacks {missing[0]}{more}", why, "kubectl apply -f crds/"
            )


def _fields(definition: Definition) -> set[str]:
    """The paths of all fields of served versions."""
    return {
        path
        for version in definition.spec.versions
        if version.served
        for path in _paths(version.schema.get("openAPIV3Schema", {}), "")
    }


def _paths(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here
        yield from _paths(inner, here)
    items = schema.get("items")
    if isinstance(items, dict):
        yield from _paths(items, f"{path}[]")


def _rights(snapshot: Snapshot) -> Iterator[Finding]:
    for right in snapshot.refused:
        yield Finding(
            "error",
            f"ServiceAccount of the {right.program}",
            f"may not {right}",
            f"The {right.program} needs it, and logs Forbidden.",
            "kubectl apply -f deploy/rbac.yaml, or upgrade the chart",
        )


def _leases(snapshot: Snapshot, *, now: datetime) -> Iterator[Finding]:
    works = {
        "operator": "No operator reconciles: changes of CAs, policies, profiles and credentials have no effect.",
        "server": "No server collects garbage, or takes up orders of servers that died.",
    }
    for program, lease in snapshot.leases.items():
        about = f"Lease of the {program}"
        logs = f"kubectl -n {snapshot.release} get pods; kubectl -n {snapshot.release} logs deploy/kms-acme"
        renewed = _parse(lease.spec.renew_time) if lease is not None else None
        if lease is None or renewed is None or not lease.spec.holder_identity:
            yield Finding("error", about, "has no holder", works[program], logs)
            continue
        age = now - renewed
        lasts = timedelta(seconds=lease.spec.lease_duration_seconds or 15)
        if age < -SKEW:
            yield Finding(
                "warning",
                about,
                f"was renewed {_words(-age)} from now: this machine's clock and that of the holder differ",
                "Validity of certificates, credentials and orders is decided by clocks.",
                "timedatectl status",
            )
        elif age > 4 * lasts + SKEW:
            yield Finding("error", about, f"was renewed {_words(age)} ago", works[program], logs)


def _conditions(snapshot: Snapshot) -> Iterator[Finding]:
    kinds = (
        ("CertificateAuthority", "kca", snapshot.authorities, "It signs nothing."),
        ("CertificatePolicy", "kpol", snapshot.policies, "Profiles that use it issue nothing."),
        ("CertificateProfile", "kprof", snapshot.profiles, "Clients get 503."),
        ("EABCredential", "eab", snapshot.credentials, "Clients cannot open accounts with it."),
    )
    for kind, short, objects, why in kinds:
        for each in objects:
            metadata = each.metadata
            conditions: tuple[Condition, ...] = each.status.conditions
            about = f"{kind} {metadata.namespace}/{metadata.name}"
            look = f"kubectl -n {metadata.namespace} describe {short}/{metadata.name}"
            ready, warnings = condition(conditions, READY), condition(conditions, WARNINGS)
            if ready is None:
                yield Finding("error", about, "was not looked at by an operator", why, look)
            elif ready.status != "True":
                asks = ready.reason == WAITING_FOR_CERTIFICATE
                do = f"kms-acme ca request {metadata.namespace}/{metadata.name}" if asks else look
                yield Finding("error", about, f"is not Ready ({ready.reason}): {ready.message}", why, do)
            if warnings is not None and warnings.status == "True":
                yield Finding(
                    "warning",
                    about,
                    f"has a part without effect: {warnings.message}",
                    "It may not do what its author means.",
                    look,
                )
    for unreadable in snapshot.unreadable:
        yield Finding(
            "error", unreadable, "cannot be read", "The programs treat it as not there, and deny.", "correct the field"
        )


def _reachability(snapshot: Snapshot) -> Iterator[Finding]:
    for url, problem in snapshot.broken.items():
        about, why = f"URL {url}", "Clients that reach it from where you are get nothing."
        if not url.startswith("https:"):
            why = "Programs that check revocation may refuse every certificate of the CA."
        yield Finding(
            "error", about, problem, why, f"kms-acme check {url}" if url.startswith("https:") else f"curl -v {url}"
        )


def _ends(snapshot: Snapshot, *, now: datetime) -> Iterator[Finding]:
    for each in snapshot.authorities:
        about = f"CertificateAuthority {each.metadata.namespace}/{each.metadata.name}"
        renew = "the operator renews it in time" if each.spec.internal is not None else "renew it where it was made"
        if each.status.not_after is not None:
            yield from _end(about, each.status.not_before, each.status.not_after, renew, now=now)
    if snapshot.serving_certificate is not None:
        try:
            leaf = x509.load_pem_x509_certificate(snapshot.serving_certificate.encode())
        except ValueError:
            why = "No client can connect."
            yield Finding(
                "error",
                "serving certificate",
                "is no certificate",
                why,
                "delete its Secret; the operator makes another",
            )
            return
        dates = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        yield from _end("serving certificate", *dates, "the operator renews it in time, unless it is yours", now=now)


def _end(about: str, begins: datetime | None, ends: datetime, do: str, *, now: datetime) -> Iterator[Finding]:
    left = ends - now
    margin = min(SOON, (ends - begins) / 10) if begins is not None else SOON
    if left <= timedelta(0):
        yield Finding(
            "error", about, f"expired at {ends:%Y-%m-%dT%H:%M:%SZ}", "Everything below it has ended, too.", do
        )
    elif left <= margin:
        why = "Certificates end with their CA, and clients are refused when it is over."
        yield Finding("warning", about, f"ends at {ends:%Y-%m-%dT%H:%M:%SZ}, in {_words(left)}", why, do)


def _orphans(snapshot: Snapshot, *, now: datetime) -> Iterator[Finding]:
    owners = {each.metadata.uid for each in snapshot.authorities} | {each.metadata.uid for each in snapshot.credentials}
    for each in snapshot.secrets:
        labels = each.metadata.labels
        if labels.get(COMPONENT) not in {SIGNING_KEY, VERIFICATION_KEY} or labels.get(OWNER_UID) in owners:
            continue
        until = kept_until(each.metadata)
        if until is not None and until > now:
            continue
        about = f"Secret {each.metadata.namespace}/{each.metadata.name}"
        owner = each.metadata.annotations.get(OWNER, "an object that is not named")
        yield Finding(
            "warning",
            about,
            f"has no owner: {owner} does not exist",
            "A key that nobody uses is a key that can leak.",
            f"kubectl -n {each.metadata.namespace} delete secret {each.metadata.name}, if you need it no more",
        )


def _credentials(snapshot: Snapshot, *, now: datetime) -> Iterator[Finding]:
    for each in snapshot.credentials:
        about = f"EABCredential {each.metadata.namespace}/{each.metadata.name}"
        delete = f"kubectl -n {each.metadata.namespace} delete eab/{each.metadata.name}, if nobody needs it"
        created = each.metadata.creation_timestamp
        if _has_expired(each, now=now):
            yield Finding(
                "note",
                about,
                "has expired",
                "Clients cannot open accounts with it.",
                "set spec.expiresAt, or delete it",
            )
        elif not each.status.accounts and created is not None and now - created > UNUSED:
            why = "A key that nobody uses is a key that can leak."
            yield Finding("note", about, f"has no account and is {_words(now - created)} old", why, delete)


def _has_expired(credential: EABCredential, *, now: datetime) -> bool:
    return credential.spec.expires_at is not None and now >= credential.spec.expires_at


def _policies(snapshot: Snapshot) -> Iterator[Finding]:
    used = {(each.metadata.namespace, each.spec.policy_ref.name) for each in snapshot.profiles}
    for each in snapshot.policies:
        key = (each.metadata.namespace, each.metadata.name)
        about = f"CertificatePolicy {'/'.join(key)}"
        try:
            policy = compile_policy(each)
        except InvalidRules:
            continue  # the condition Ready says so
        names = [
            *(policy.dns_names.allowed if policy.dns_names else ()),
            *(policy.ip_addresses.allowed if policy.ip_addresses else ()),
        ]
        unlisted = unlisted_names(policy) if names else None
        if unlisted is not None and key in used:
            what = "allows every name" if unlisted == "none or all" else f"allows {unlisted}"
            why = "Whoever may use a profile with it gets certificates for names of others."
            yield Finding(
                "warning", about, what, why, f"kubectl -n {key[0]} edit kpol/{key[1]}  # spec.dnsNames.allowed"
            )
        elif key not in used:
            yield Finding(
                "note", about, "is used by no profile", "It decides nothing.", "delete it, or name it in spec.policyRef"
            )


def _blind_spots(snapshot: Snapshot) -> Iterator[Finding]:
    for each in snapshot.unread:
        yield Finding(
            "note", each, "was not looked at", "You may not read it, or it did not answer.", "ask with more rights"
        )


def _parse(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        return None


def _words(duration: timedelta) -> str:
    """`3 days`, `5 hours`, `40 seconds`."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        number = int(duration.total_seconds() // length)
        if number:
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return f"{int(duration.total_seconds())} seconds"
