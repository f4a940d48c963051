"""CertificateAuthority: issues internal CAs or checks imported ones, and renews certificates with the existing key.

The only copy of the key is in a Secret of the release namespace. It is written once, before the status names the CA;
from then on it is only read. If it is lost, the CA reports that and waits: a new key under the same name would be
another CA, and clients that trust the old one would fail without a warning. For the same reason a CertificateAuthority
takes over the key of one of the same namespace and name that was deleted, or restored with another UID, if subject,
key algorithm and issuer agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

import msgspec
from cryptography import x509

from kms.clock import Entropy
from kms.contract import NOTIFICATIONS, READY, TRUST_PUBLISHED
from kms.pki.ca import (
    AlternateChain,
    InvalidAuthority,
    chain_to_root_pem,
    check_cross,
    check_imported,
    former_roots,
    subject_key_id,
)
from kms.pki.ca.cross import REASON as INVALID_CROSS
from kms.pki.certificate import Signer, certificate_pem, certifies
from kms.pki.keys import private_key_pem
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import (
    AuthorityStatus,
    CertificateAuthority,
    FormerKey,
    FormerRoot,
    ImportedAuthority,
)
from kms.resources.core import Secret
from kms.resources.kept import FORMER_KEYS as FORMER_KEYS_ANNOTATION
from kms.resources.kept import (
    LONGEST_CERTIFICATE,
    SERVED_PROFILES,
    Departure,
    format_former_keys,
    format_served_profiles,
    parse_former_keys,
)
from kms.resources.kinds import AUTHORITIES, SECRETS
from kms.resources.meta import is_true
from kms.resources.retained import SECRET_LIMIT_REACHED
from kms.resources.secret_names import (
    CERTIFICATE_REQUEST,
    SIGNING_KEY,
    TLS_CERTIFICATE,
    TLS_PRIVATE_KEY,
    signing_key_name,
)
from kms_operator.objects import internal_secret, secret_changes, signer_in
from kms_operator.plan import (
    REREAD,
    RESYNC,
    SECRET_NOT_FOUND,
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
from kms_operator.reconcilers import external_authority
from kms_operator.reconcilers.authority_limits import warnings_about_authority
from kms_operator.reconcilers.earlier_authorities import describe_another, former_keys
from kms_operator.reconcilers.internal_authority import RENEWED, ActiveAuthority, has_kept_key, issue_internal
from kms_operator.reconcilers.issuer_change import is_published
from kms_operator.reconcilers.kept_keys import longest_certificate, longest_duration, predecessors
from kms_operator.reconcilers.requested_authority import FLAWED_CERTIFICATE, RECONCILED, WaitingAuthority
from kms_operator.reconcilers.rules_without_effect import warnings
from kms_operator.reconcilers.served_profiles import (
    former_roots_annotations,
    proven_former_roots,
    recorded_former_roots,
    served_profiles,
)
from kms_operator.reconcilers.stored_keys import (
    KEY_STORE_CONDITION,
    has_key,
    is_first_failure,
    key_data,
    load_stored_key,
    reads_of_credentials,
    state_protection,
    state_unanswered,
)
from kms_operator.reconcilers.waiting_authority import RESTORED, plan_waiting
from kms_operator.settings import OperatorSettings
from kms_operator.shares import secret_limit_reached
from kms_operator.snapshot import Read, Snapshot

IMPORTED = "Imported"
ANOTHER = "AnotherCertificateAuthority"

ALTERNATE_CHAINS = "AlternateChains"
REVOCATION_LIST = "RevocationList"
"""Conditions beside Ready. Reconciled is False while a CA that can sign is not as its spec asks;
`kms_operator.reconcilers.trust_distribution` states TrustPublished."""


def reads(authority: CertificateAuthority, snapshot: Snapshot) -> Iterator[Read]:
    """The Secret with the key, and the Secret that a user imports; nothing for a CA that gets no Secret anyway."""
    if authority.spec.external is not None:
        yield from external_authority.reads(authority, snapshot)
        return
    if _limit_reached(authority, snapshot) and not predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot):
        return
    yield Read(SECRETS, snapshot.settings.namespace, signing_key_name(authority.metadata.uid))
    if authority.spec.imported is not None:
        yield Read(SECRETS, authority.metadata.namespace, authority.spec.imported.secret_ref.name)
    yield from reads_of_credentials(authority)


def plan(authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:
    """Issue the CA, renew it, or state why it cannot sign."""
    if authority.spec.external is not None:
        return external_authority.plan(authority, authority.spec.external, snapshot, now=now)
    generation, old = authority.metadata.generation, authority.status.conditions
    refusals = partial(_report_refusals, authority, now=now)
    try:
        if (message := _limit_reached(authority, snapshot)) and not has_kept_key(authority, snapshot, now=now):
            raise InvalidAuthority(SECRET_LIMIT_REACHED, message)  # noqa: TRY301 - one answer for all refusals
        active = _activate(authority, snapshot, now=now, entropy=entropy)
    except InvalidAuthority as error:
        update, keep = not_ready(error.reason, str(error)), {TRUST_PUBLISHED, NOTIFICATIONS}
        if is_first_failure(authority, error):
            update, keep = state_unanswered(error), {each.type for each in old} - {KEY_STORE_CONDITION}
        conditions = merge_conditions(old, (update,), generation=generation, now=now, keep=keep)
        # The published certificate stays in the status: it distinguishes a lost key from one that was never made.
        status = msgspec.structs.replace(authority.status, observed_generation=generation, conditions=conditions)
        return Plan(status=status, events=transition_events(old, update), requeue_at=_recheck_at(authority, error, now))
    if isinstance(active, WaitingAuthority):
        return plan_waiting(authority, active, snapshot, now=now, on_refusals=refusals)
    certificate = active.signer.certificate
    existing = snapshot.internal_secret(signing_key_name(authority.metadata.uid))
    before = predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot)
    another = describe_another(authority, active.signer, before)
    former = former_keys(authority, active.signer, (existing, *before), now=now)
    can_sign = f"can sign until {active.signer.not_after:%Y-%m-%dT%H:%M:%SZ}"
    update = ready(active.reason, f"{can_sign}; {another}" if another else can_sign)
    alternates, aside = _alternates(authority, active.signer, now=now)
    stored = load_stored_key(authority, snapshot)
    key = key_data(active.signer.key, stored)
    taken = [each for each in before if has_key(each, key)]
    flaws = (*_check_key_usage(active.signer), *_warn(authority, active.signer, snapshot, now=now))
    protection = (state_protection(stored),) if stored is not None else ()
    updates = (update, *aside, *flaws, *active.conditions, *protection)
    undone = any(each.status != "True" for each in (*aside, *active.conditions))
    complete = is_published(authority) and not undone
    status = AuthorityStatus(
        observed_generation=carried_out(authority.status.observed_generation, generation, complete=complete),
        type=active.type,
        subject=certificate.subject.rfc4514_string(),
        certificate=certificate_pem(certificate),
        chain=chain_to_root_pem(active.signer),
        request=active.request,
        alternate_chains=tuple(each.pem for each in alternates),
        serial_number=f"{certificate.serial_number:x}",
        subject_key_id=subject_key_id(certificate),
        key_version=stored.version if stored is not None else None,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        former_roots=_former_roots(authority, active.signer, existing, taken, now=now),
        former_keys=former,
        conditions=merge_conditions(
            old, updates, generation=generation, now=now, keep=(TRUST_PUBLISHED, NOTIFICATIONS)
        ),
    )
    earlier = (longest_certificate(each) for each in (existing, *before))
    longest = longest_duration(authority, snapshot, max(filter(None, earlier), default=None))
    wanted = signing_secret(
        authority,
        active.signer,
        snapshot.settings,
        former_keys=former,
        former_roots=status.former_roots,
        served=served_profiles(authority, (*taken, *([existing] if existing else [])), snapshot, now=now),
        longest=longest,
        request=active.request,
        key=key,
    )
    events = [*(event for each in updates for event in transition_events(old, each)), *active.events]
    if existing is None and taken:
        events.append(Event(RESTORED, f"uses the key of Secret {taken[0].metadata.name} again"))
    if authority.status.certificate is None and another:
        events.append(Event(ANOTHER, another, "Warning"))
    return Plan(
        # Only once this CA has the key in a Secret of its own.
        delete=tuple(Manifest(SECRETS, each) for each in taken) if existing is not None else (),
        apply=secret_changes(existing, wanted),
        status=status,
        events=tuple(events),
        requeue_at=earliest(
            active.requeue_at, now + RESYNC if stored is not None else None, *(each.not_after for each in alternates)
        ),
        on_refusals=refusals,
    )


def _report_refusals(authority: CertificateAuthority, refusals: Sequence[Refusal], *, now: datetime) -> Plan:
    """State what the API server has refused. A CA that can sign goes on with the certificate that it has.

    The rest of the status stays as it was, the observed generation too: what the spec asks for is not done.
    """
    status, old = authority.status, authority.status.conditions
    can_sign = is_true(old, READY) and status.not_after is not None and now < status.not_after
    update = ConditionUpdate("False", refusals[0].reason, refusals[0].message, RECONCILED if can_sign else READY)
    keep = {each.type for each in old} - {update.type}
    conditions = merge_conditions(old, (update,), generation=authority.metadata.generation, now=now, keep=keep)
    return Plan(status=msgspec.structs.replace(status, conditions=conditions), events=transition_events(old, update))


def _recheck_at(authority: CertificateAuthority, refusal: InvalidAuthority, now: datetime) -> datetime | None:
    """Return when to try again; None where an event tells."""
    if refusal.reason == SECRET_LIMIT_REACHED:
        return None
    names_secret = authority.spec.imported is not None or refusal.reason == SECRET_NOT_FOUND
    return now + (REREAD if names_secret else RESYNC)


def _limit_reached(authority: CertificateAuthority, snapshot: Snapshot) -> str | None:
    """Return why a CA that has never had a key gets none; None if it does, or has one."""
    name = signing_key_name(authority.metadata.uid)
    if authority.status.certificate is not None or snapshot.internal_secret(name) is not None:
        return None
    return secret_limit_reached(authority.metadata.namespace, snapshot)


def _alternates(
    authority: CertificateAuthority, signer: Signer, *, now: datetime
) -> tuple[tuple[AlternateChain, ...], tuple[ConditionUpdate, ...]]:
    """Return the chains of valid cross certificates, and a condition about all of them if there are any.

    An invalid one stops neither the CA nor the other chains.
    """
    valid: list[AlternateChain] = []
    invalid: list[str] = []
    for position, pem in enumerate(authority.spec.cross_certificates):
        try:
            valid.append(check_cross(pem, signer, now=now))
        except InvalidAuthority as error:
            invalid.append(f"spec.crossCertificates[{position}]: {error}")
    if not authority.spec.cross_certificates:
        return (), ()
    if invalid:
        return tuple(valid), (ConditionUpdate("False", INVALID_CROSS, "; ".join(invalid), type=ALTERNATE_CHAINS),)
    message = f"clients are offered {len(valid)} chain(s) in addition to the default one"
    return tuple(valid), (ConditionUpdate("True", "Published", message, type=ALTERNATE_CHAINS),)


def _former_roots(
    authority: CertificateAuthority,
    signer: Signer,
    existing: Secret | None,
    taken: Sequence[Secret],
    *,
    now: datetime,
) -> tuple[FormerRoot, ...]:
    """Return the former roots of the CA; they stay published for a while. Those that had its key had them, too.

    A chain in the status is one that the CA has had only if it leads from one of its keys to the root.
    """
    status = authority.status
    held = signer_in(existing)
    before = status.chain
    if existing is not None and held is not None:
        known = {each.subject_key_id for each in parse_former_keys(existing.metadata)}
        known |= {subject_key_id(each.certificate) for each in (signer, held)}
        before = status.chain if _is_chain_of(status.chain, known) else None
    former = proven_former_roots(authority, existing)
    former += [root for each in taken for root in recorded_former_roots(each)]
    kept = former_roots(former, before, chain_to_root_pem(signer), now=now)
    return tuple(FormerRoot(certificate=each.pem, replaced_at=each.replaced_at) for each in kept)


def _is_chain_of(chain: str | None, key_ids: Collection[str]) -> bool:
    """Whether the chain begins with one of these keys, and each certificate is issued by the next."""
    try:
        certificates = x509.load_pem_x509_certificates((chain or "").encode())
        return subject_key_id(certificates[0]) in key_ids and all(
            certifies(issuer, below) for below, issuer in pairwise(certificates)
        )
    except PARSER_ERRORS:
        return False


def _check_key_usage(signer: Signer) -> tuple[ConditionUpdate, ...]:
    """Return a condition if the CA must not sign revocation lists."""
    if signer.signs_lists:
        return ()
    message = (
        "the keyUsage of the CA's certificate lacks cRLSign: it publishes no revocation list, and certificates name"
        " none; have the CA certified with cRLSign, or use another"
    )
    return (ConditionUpdate("False", "KeyUsage", message, type=REVOCATION_LIST),)


def _warn(
    authority: CertificateAuthority, signer: Signer, snapshot: Snapshot, *, now: datetime
) -> tuple[ConditionUpdate, ...]:
    """Return Warnings about an imported CA; the operator renews internal ones."""
    if authority.spec.imported is None:
        return ()
    longest = longest_duration(authority, snapshot, None)
    return warnings(warnings_about_authority(signer, longest, now=now), reason=FLAWED_CERTIFICATE)


def signing_secret(
    authority: CertificateAuthority,
    signer: Signer,
    settings: OperatorSettings,
    *,
    former_keys: tuple[FormerKey, ...] = (),
    former_roots: Iterable[FormerRoot] = (),
    served: Mapping[str, Departure | None] | None = None,
    longest: timedelta = timedelta(0),
    request: str | None = None,
    key: Mapping[str, bytes] | None = None,
) -> Secret:
    """Build the Secret that the server signs with: the key, and the chain up to the root.

    `key` is the data of a key that is elsewhere (`kms_operator.reconcilers.stored_keys`).

    Its annotations say what is needed after the CA was deleted: its former keys, and how long its certificates last;
    and what proves former roots: these, and the profiles that have named the CA.
    """
    annotations = {
        LONGEST_CERTIFICATE: f"{int(longest.total_seconds())}",
        **former_roots_annotations(former_roots),
        SERVED_PROFILES: format_served_profiles(served or {}),
    }
    if former_keys:
        annotations[FORMER_KEYS_ANNOTATION] = format_former_keys(former_keys)
    return internal_secret(
        settings.namespace,
        signing_key_name(authority.metadata.uid),
        component=SIGNING_KEY,
        owner=authority,
        kind=AUTHORITIES,
        annotations=annotations,
        data={
            **(key or {TLS_PRIVATE_KEY: private_key_pem(signer.key)}),
            TLS_CERTIFICATE: chain_to_root_pem(signer).encode(),
            **({CERTIFICATE_REQUEST: request.encode()} if request is not None else {}),
        },
    )


def _activate(
    authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime, entropy: Entropy
) -> ActiveAuthority | WaitingAuthority:
    if authority.spec.imported is not None:
        return _load_imported(authority, authority.spec.imported, snapshot, now=now)
    if authority.spec.internal is not None:
        return issue_internal(authority, authority.spec.internal, snapshot, now=now, entropy=entropy)
    raise InvalidAuthority("InvalidSpec", "none of spec.internal, spec.imported and spec.external is set; set one")


def _load_imported(
    authority: CertificateAuthority, spec: ImportedAuthority, snapshot: Snapshot, *, now: datetime
) -> ActiveAuthority:
    name = spec.secret_ref.name
    secret = snapshot.secret(authority.metadata.namespace, name)
    if secret is None:
        raise InvalidAuthority(
            SECRET_NOT_FOUND,
            f"Secret {name} does not exist; create it with: kubectl create secret tls {name}"
            f" -n {authority.metadata.namespace} --cert=CHAIN.pem --key=KEY.pem",
        )
    pair = secret.data.get(TLS_CERTIFICATE, b""), secret.data.get(TLS_PRIVATE_KEY, b"")
    signer = check_imported(*pair, now=now)
    known = authority.status.certificate
    changed = known is not None and known != certificate_pem(signer.certificate)
    event = Event(RENEWED, f"now uses the new certificate of Secret {name}")
    return ActiveAuthority("Imported", IMPORTED, signer, (event,) if changed else (), now + REREAD)
