"""CertificateAuthority: issues internal CAs or checks imported ones, and renews certificates with the existing key.

The only copy of the key is in a Secret of the release namespace. It is written once, before the status names the CA;
from then on it is only read. If it is lost, the CA reports that and waits: a new key under the same name would be
another CA, and clients that trust the old one would fail without a warning. For the same reason a CertificateAuthority
takes over the key of one of the same namespace and name that was deleted, or restored with another UID, if subject,
key algorithm and issuer agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

import msgspec
from cryptography import x509

from kms.clock import Entropy
from kms.contract import READY, UNREADABLE
from kms.pki.ca import (
    AlternateChain,
    AuthorityTemplate,
    InvalidAuthority,
    ReplacedRoot,
    chain_to_root_pem,
    check_cross,
    check_imported,
    former_roots,
    intermediate,
    load_signer,
    matches_template,
    renewal_time,
    self_signed,
    subject_key_id,
)
from kms.pki.ca.cross import REASON as INVALID_CROSS
from kms.pki.certificate import Signer, certificate_pem, certifies, random_serial
from kms.pki.keys import PrivateKey, generate_key, load_private_key, private_key_pem
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import (
    AuthorityStatus,
    CertificateAuthority,
    FormerKey,
    FormerRoot,
    ImportedAuthority,
    InternalAuthority,
)
from kms.resources.compile import InvalidRules, compile_constraints, subject_attributes
from kms.resources.core import Secret
from kms.resources.durations import parse_duration
from kms.resources.kept import FORMER_KEYS as FORMER_KEYS_ANNOTATION
from kms.resources.kept import FORMER_ROOTS, LONGEST_CERTIFICATE, format_former_keys, parse_former_keys
from kms.resources.kinds import AUTHORITIES, SECRETS
from kms.resources.meta import is_true
from kms.resources.retained import SECRET_LIMIT_REACHED
from kms.resources.secret_names import SIGNING_KEY, TLS_CERTIFICATE, TLS_PRIVATE_KEY, signing_key_name
from kms_operator.objects import internal_secret, secret_changes, signer_in
from kms_operator.plan import (
    REREAD,
    RESYNC,
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
from kms_operator.reconcilers.earlier_authorities import agrees, describe_another, former_keys
from kms_operator.reconcilers.issuer_cycles import ISSUER_CYCLE, describe_cycle, find_cycle
from kms_operator.reconcilers.kept_keys import longest_certificate, longest_duration, predecessors
from kms_operator.settings import OperatorSettings
from kms_operator.shares import secret_limit_reached
from kms_operator.snapshot import Read, Snapshot

ISSUED = "Issued"
IMPORTED = "Imported"
RENEWED = "Renewed"
RESTORED = "Restored"
ANOTHER = "AnotherCertificateAuthority"
KEY_LOST = "KeyLost"
KEY_MISMATCH = "KeyMismatch"

ALTERNATE_CHAINS = "AlternateChains"
REVOCATION_LIST = "RevocationList"
TRUST_PUBLISHED = "TrustPublished"
RECONCILED = "Reconciled"
"""Conditions beside Ready. Reconciled is False while a CA that can sign is not as its spec asks;
`kms_operator.reconcilers.trust_distribution` states TrustPublished."""

BACKDATED = timedelta(hours=1)
"""How much earlier a CA certificate begins, for clocks that are behind."""


@dataclass(frozen=True, slots=True)
class _ActiveAuthority:
    """A CA that can sign."""

    type: str
    reason: str
    signer: Signer
    events: tuple[Event, ...] = ()
    requeue_at: datetime | None = None


def reads(authority: CertificateAuthority, snapshot: Snapshot) -> Iterator[Read]:
    """The Secret with the key, and the Secret that a user imports; nothing for a CA that gets no Secret anyway."""
    if _limit_reached(authority, snapshot) and not predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot):
        return
    yield Read(SECRETS, snapshot.settings.namespace, signing_key_name(authority.metadata.uid))
    if authority.spec.imported is not None:
        yield Read(SECRETS, authority.metadata.namespace, authority.spec.imported.secret_ref.name)


def plan(authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:
    """Issue the CA, renew it, or state why it cannot sign."""
    generation, old = authority.metadata.generation, authority.status.conditions
    try:
        if (message := _limit_reached(authority, snapshot)) and not _has_kept_key(authority, snapshot, now=now):
            raise InvalidAuthority(SECRET_LIMIT_REACHED, message)  # noqa: TRY301 - one answer for all refusals
        active = _activate(authority, snapshot, now=now, entropy=entropy)
    except InvalidAuthority as error:
        update = not_ready(error.reason, str(error))
        conditions = merge_conditions(old, (update,), generation=generation, now=now, keep=(TRUST_PUBLISHED,))
        # The published certificate stays in the status: it distinguishes a lost key from one that was never made.
        status = msgspec.structs.replace(authority.status, observed_generation=generation, conditions=conditions)
        return Plan(status=status, events=transition_events(old, update), requeue_at=_recheck_at(authority, error, now))
    certificate = active.signer.certificate
    existing = snapshot.internal_secret(signing_key_name(authority.metadata.uid))
    before = predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot)
    another = describe_another(authority, active.signer, before)
    former = former_keys(authority, active.signer, (existing, *before), now=now)
    can_sign = f"can sign until {active.signer.not_after:%Y-%m-%dT%H:%M:%SZ}"
    update = ready(active.reason, f"{can_sign}; {another}" if another else can_sign)
    alternates, aside = _alternates(authority, active.signer, now=now)
    updates = (update, *aside, *_check_key_usage(active.signer))
    status = AuthorityStatus(
        observed_generation=generation,
        type=active.type,
        subject=certificate.subject.rfc4514_string(),
        certificate=certificate_pem(certificate),
        chain=chain_to_root_pem(active.signer),
        alternate_chains=tuple(each.pem for each in alternates),
        serial_number=f"{certificate.serial_number:x}",
        subject_key_id=subject_key_id(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        former_roots=_former_roots(authority, active.signer, existing, now=now),
        former_keys=former,
        conditions=merge_conditions(old, updates, generation=generation, now=now, keep=(TRUST_PUBLISHED,)),
    )
    earlier = (longest_certificate(each) for each in (existing, *before))
    longest = longest_duration(authority, snapshot, max(filter(None, earlier), default=None))
    wanted = signing_secret(
        authority,
        active.signer,
        snapshot.settings,
        former_keys=former,
        former_roots=status.former_roots,
        longest=longest,
    )
    taken = [each for each in before if each.data.get(TLS_PRIVATE_KEY) == wanted.data[TLS_PRIVATE_KEY]]
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
        requeue_at=earliest(active.requeue_at, *(each.not_after for each in alternates)),
        on_refusals=partial(_report_refusals, authority, now=now),
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
    return now + (REREAD if authority.spec.imported is not None else RESYNC)


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
    *,
    now: datetime,
) -> tuple[FormerRoot, ...]:
    """Return the former roots of the CA; they stay published for a while.

    A chain in the status is one that the CA has had only if it leads from one of its keys to the root.
    """
    status = authority.status
    held = signer_in(existing)
    before = status.chain
    if existing is not None and held is not None:
        known = {each.subject_key_id for each in parse_former_keys(existing.metadata)}
        known |= {subject_key_id(each.certificate) for each in (signer, held)}
        before = status.chain if _is_chain_of(status.chain, known) else None
    proven = existing.metadata.annotations.get(FORMER_ROOTS) if existing is not None else None
    replaced = [
        ReplacedRoot(each.certificate, each.replaced_at)
        for each in status.former_roots
        if proven is None or _digest(each) in proven.split()
    ]
    kept = former_roots(replaced, before, chain_to_root_pem(signer), now=now)
    return tuple(FormerRoot(certificate=each.pem, replaced_at=each.replaced_at) for each in kept)


def _digest(root: FormerRoot) -> str:
    return hashlib.sha256(root.certificate.encode()).hexdigest()


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


def signing_secret(
    authority: CertificateAuthority,
    signer: Signer,
    settings: OperatorSettings,
    *,
    former_keys: tuple[FormerKey, ...] = (),
    former_roots: Iterable[FormerRoot] = (),
    longest: timedelta = timedelta(0),
) -> Secret:
    """Build the Secret that the server signs with: the key, and the chain up to the root.

    Its annotations say what is needed after the CA was deleted: its former keys, and how long its certificates last.
    """
    annotations = {
        LONGEST_CERTIFICATE: f"{int(longest.total_seconds())}",
        FORMER_ROOTS: " ".join(map(_digest, former_roots)),
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
            TLS_PRIVATE_KEY: private_key_pem(signer.key),
            TLS_CERTIFICATE: chain_to_root_pem(signer).encode(),
        },
    )


def _activate(
    authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime, entropy: Entropy
) -> _ActiveAuthority:
    if authority.spec.imported is not None:
        return _load_imported(authority, authority.spec.imported, snapshot, now=now)
    if authority.spec.internal is not None:
        return _issue_internal(authority, authority.spec.internal, snapshot, now=now, entropy=entropy)
    raise InvalidAuthority("InvalidSpec", "neither spec.internal nor spec.imported is set; set one of them")


def _load_imported(
    authority: CertificateAuthority, spec: ImportedAuthority, snapshot: Snapshot, *, now: datetime
) -> _ActiveAuthority:
    name = spec.secret_ref.name
    secret = snapshot.secret(authority.metadata.namespace, name)
    if secret is None:
        raise InvalidAuthority(
            "SecretNotFound",
            f"Secret {name} does not exist; create it with: kubectl create secret tls {name}"
            f" -n {authority.metadata.namespace} --cert=CHAIN.pem --key=KEY.pem",
        )
    pair = secret.data.get(TLS_CERTIFICATE, b""), secret.data.get(TLS_PRIVATE_KEY, b"")
    signer = check_imported(*pair, now=now)
    known = authority.status.certificate
    changed = known is not None and known != certificate_pem(signer.certificate)
    event = Event(RENEWED, f"now uses the new certificate of Secret {name}")
    return _ActiveAuthority("Imported", IMPORTED, signer, (event,) if changed else (), now + REREAD)


def _issue_internal(
    authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot, *, now: datetime, entropy: Entropy
) -> _ActiveAuthority:
    key, current = _load_current(authority, spec, snapshot, now=now)
    try:
        issuer = _issuer(authority, spec, snapshot, now=now)
    except InvalidAuthority:
        # A CA with a valid certificate does not need its issuer.
        if current is None or current.not_after <= now:
            raise
        return _check_validity(spec, current, now=now)
    template = _template(spec, issuer, now=now, entropy=entropy)
    if current is not None and not _is_due(current, template, key, issuer, now=now):
        return _check_validity(spec, current, now=now)
    signer = _sign(template, key, issuer)
    renewed = Event(RENEWED, f"the certificate was renewed with the same key, until {signer.not_after:%Y-%m-%d}")
    return _check_validity(spec, signer, now=now, events=(renewed,) if current is not None else ())


def _check_validity(
    spec: InternalAuthority, signer: Signer, *, now: datetime, events: tuple[Event, ...] = ()
) -> _ActiveAuthority:
    if signer.not_after <= now:
        raise InvalidAuthority(
            "Expired",
            f"the chain of the CA ended at {signer.not_after:%Y-%m-%dT%H:%M:%SZ} and its issuer cannot extend it",
        )
    upcoming = (each for each in (renewal_time(signer.certificate), signer.not_after) if each > now)
    type_ = "Root" if spec.issuer_ref is None else "Intermediate"
    return _ActiveAuthority(type_, ISSUED, signer, events, earliest(*upcoming))


def _load_current(
    authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot, *, now: datetime
) -> tuple[PrivateKey, Signer | None]:
    """Return the existing key and certificate; generate a key only if there has never been one."""
    name = signing_key_name(authority.metadata.uid)
    where = f"Secret {snapshot.settings.namespace}/{name}"
    secret = snapshot.internal_secret(name) or _kept_key(authority, spec, snapshot, now=now)
    if secret is None:
        if authority.status.certificate is not None:
            raise InvalidAuthority(
                KEY_LOST,
                f"{where} does not exist, so the CA's private key is lost; restore it from a backup, or delete this"
                " CertificateAuthority and create it again: that makes a new CA, which clients must trust first",
            )
        return generate_key(spec.private_key.algorithm, spec.private_key.size), None
    pem = secret.data.get(TLS_PRIVATE_KEY, b"")
    try:
        key = load_private_key(pem)
    except ValueError as error:
        raise InvalidAuthority(
            KEY_LOST, f"{where} no longer holds the CA's private key; restore it from a backup"
        ) from error
    published = (authority.status.chain or "").encode()
    held = signer_in(secret)
    # A status that somebody has changed proves nothing against a pair that is what the spec asks for.
    genuine = held is not None and agrees(held, spec, None)
    if _is_certified(published, key) is False and not genuine:
        raise InvalidAuthority(
            KEY_MISMATCH, f"{where} holds a key that does not belong to the CA's certificate; restore it from a backup"
        )
    for chain in (secret.data.get(TLS_CERTIFICATE, b""), published):
        try:
            return key, load_signer(chain, pem)
        except InvalidAuthority:
            continue
    return key, None


def _kept_key(
    authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot, *, now: datetime
) -> Secret | None:
    """Return the Secret of an earlier object of this name that was the same CA; None if there is none."""
    try:
        issuer = _issuer(authority, spec, snapshot, now=now)
    except InvalidAuthority:
        issuer = None  # it may come back later, too
    for secret in predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot):
        held = signer_in(secret)
        if held is not None and agrees(held, spec, issuer):
            return secret
    return None


def _has_kept_key(authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime) -> bool:
    """Whether an earlier object of this name was the same CA: its key takes a place already."""
    if authority.spec.internal is not None:
        return _kept_key(authority, authority.spec.internal, snapshot, now=now) is not None
    if authority.spec.imported is None:
        return False
    imported = signer_in(snapshot.secret(authority.metadata.namespace, authority.spec.imported.secret_ref.name))
    held = map(signer_in, predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot))
    return imported is not None and any(
        each is not None and each.key.public_key() == imported.key.public_key() for each in held
    )


def _issuer(
    authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot, *, now: datetime
) -> Signer | None:
    """Return the CA that signs this one; None for a root. Raises InvalidAuthority if it cannot sign."""
    if spec.issuer_ref is None:
        return None
    namespace, name = authority.metadata.namespace, spec.issuer_ref.name
    issuer = snapshot.authority(spec.issuer_ref, namespace=namespace)
    if issuer is None and (unreadable := snapshot.unreadable(AUTHORITIES, (namespace, name))) is not None:
        raise InvalidAuthority(UNREADABLE, f"CertificateAuthority {namespace}/{name} cannot be read: {unreadable}")
    if issuer is None:
        raise InvalidAuthority("IssuerNotFound", f"CertificateAuthority {namespace}/{name} does not exist")
    secret = snapshot.internal_secret(signing_key_name(issuer.metadata.uid))
    if secret is None or not is_true(issuer.status.conditions, READY):
        if cycle := find_cycle(authority, snapshot):
            raise InvalidAuthority(ISSUER_CYCLE, describe_cycle(cycle, namespace))
        raise InvalidAuthority("IssuerNotReady", f"CertificateAuthority {namespace}/{name} is not ready")
    signer = load_signer(secret.data.get(TLS_CERTIFICATE, b""), secret.data.get(TLS_PRIVATE_KEY, b""))
    if signer.not_after <= now:
        raise InvalidAuthority("IssuerNotReady", f"CertificateAuthority {namespace}/{name} has expired")
    return signer


def _template(spec: InternalAuthority, issuer: Signer | None, *, now: datetime, entropy: Entropy) -> AuthorityTemplate:
    try:
        not_after = now + parse_duration(spec.duration)
        constraints = compile_constraints(spec.name_constraints)
    except InvalidRules as error:
        raise InvalidAuthority("InvalidNameConstraints", str(error)) from error
    except (ValueError, OverflowError) as error:
        raise InvalidAuthority("InvalidDuration", f"spec.internal.duration: {error}") from error
    return AuthorityTemplate(
        common_name=spec.subject.common_name,
        subject=subject_attributes(spec.subject),
        serial=random_serial(entropy),
        not_before=now - BACKDATED,
        not_after=not_after if issuer is None else min(not_after, issuer.not_after),
        path_length=spec.path_length,
        constraints=constraints,
    )


def _is_due(
    current: Signer, template: AuthorityTemplate, key: PrivateKey, issuer: Signer | None, *, now: datetime
) -> bool:
    """Whether to sign again: the spec or the issuer has changed, or renewal is due and extends the validity."""
    above = () if issuer is None else (issuer.certificate, *issuer.issuers)
    if current.issuers != above or not matches_template(current.certificate, template, key, issuer):
        return True
    return now >= renewal_time(current.certificate) and template.not_after > current.not_after


def _sign(template: AuthorityTemplate, key: PrivateKey, issuer: Signer | None) -> Signer:
    try:
        if issuer is None:
            return Signer(self_signed(template, key), key)
        return Signer(intermediate(template, key, issuer), key, (issuer.certificate, *issuer.issuers))
    except InvalidAuthority:
        raise
    except ValueError as error:
        raise InvalidAuthority("InvalidSpec", f"spec.internal: {error}") from error


def _is_certified(chain: bytes, key: PrivateKey) -> bool | None:
    """Whether the first certificate of the published chain is for this key; None if there is none that can be read."""
    try:
        return x509.load_pem_x509_certificates(chain)[0].public_key() == key.public_key()
    except PARSER_ERRORS:
        return None
