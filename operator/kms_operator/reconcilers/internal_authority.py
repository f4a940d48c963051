"""Internal CAs: their key is generated once, their certificate is issued and renewed with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from kms.clock import Entropy
from kms.contract import READY, UNREADABLE, ca_certificate_url, revocation_list_url
from kms.pki.ca import (
    AuthorityTemplate,
    InvalidAuthority,
    intermediate,
    load_signer,
    matches_template,
    renewal_time,
    self_signed,
    subject_key_id,
)
from kms.pki.ca.chain_file import LARGEST
from kms.pki.certificate import Signer, certificate_pem, random_serial
from kms.pki.keys import PrivateKey, generate_key, load_private_key
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import CertificateAuthority, InternalAuthority
from kms.resources.compile import InvalidRules, compile_constraints, subject_attributes
from kms.resources.core import Secret
from kms.resources.durations import parse_duration
from kms.resources.kinds import AUTHORITIES
from kms.resources.meta import is_true
from kms.resources.secret_names import KEY_STORE, SIGNING_KEY, TLS_CERTIFICATE, TLS_PRIVATE_KEY, signing_key_name
from kms_operator.objects import signer_in
from kms_operator.plan import ConditionUpdate, Event, earliest
from kms_operator.reconcilers.earlier_authorities import agrees, is_same_authority
from kms_operator.reconcilers.issuer_cycles import ISSUER_CYCLE, describe_cycle, find_cycle
from kms_operator.reconcilers.kept_keys import predecessors
from kms_operator.reconcilers.requested_authority import WaitingAuthority, describe_lost_key, use_certificate
from kms_operator.reconcilers.stored_keys import has_kept_location, issuer_in, load_stored
from kms_operator.reconcilers.subordinate_authority import external_issuer, use_issued
from kms_operator.snapshot import Snapshot

ISSUED = "Issued"
RENEWED = "Renewed"
KEY_LOST = "KeyLost"
KEY_MISMATCH = "KeyMismatch"

BACKDATED = timedelta(hours=1)
"""How much earlier a CA certificate begins, for clocks that are behind."""


@dataclass(frozen=True, slots=True)
class ActiveAuthority:
    """A CA that can sign. `request` is the certificate request of one that is certified by request.

    `conditions` are those that it states beside Ready.
    """

    type: str
    reason: str
    signer: Signer
    events: tuple[Event, ...] = ()
    requeue_at: datetime | None = None
    request: str | None = None
    conditions: tuple[ConditionUpdate, ...] = ()


def issue_internal(
    authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot, *, now: datetime, entropy: Entropy
) -> ActiveAuthority | WaitingAuthority:
    """Return the CA with its current certificate, or with a new one if that is due.

    Raises InvalidAuthority if it cannot sign.
    """
    key, current = _load_current(authority, spec, snapshot, now=now)
    external = external_issuer(authority, spec, snapshot)
    if spec.signed_by is not None or external is not None:
        if external is not None:
            used = use_issued(authority, spec, key, current, snapshot, issuer=external, now=now)
        else:
            used = use_certificate(authority, spec, key, current, now=now)
        if isinstance(used, WaitingAuthority):
            return used
        signer = Signer(used.chain[0], key, used.chain[1:])
        return ActiveAuthority(
            "Intermediate", ISSUED, signer, used.events, used.requeue_at, used.request, used.conditions
        )
    try:
        issuer = _issuer(authority, spec, snapshot, now=now)
    except InvalidAuthority:
        # A CA with a valid certificate does not need its issuer.
        if current is None or current.not_after <= now:
            raise
        return _check_validity(spec, current, now=now)
    template = _template(authority, spec, issuer, snapshot, now=now, entropy=entropy)
    if current is not None and not _is_due(current, template, key, issuer, now=now):
        return _check_validity(spec, current, now=now)
    signer = _sign(template, key, issuer)
    if len(certificate_pem(signer.certificate)) > LARGEST:
        raise InvalidAuthority(
            "InvalidNameConstraints",
            f"spec.internal.nameConstraints makes a certificate of more than {LARGEST} octets; shorten it",
        )
    renewed = Event(RENEWED, f"the certificate was renewed with the same key, until {signer.not_after:%Y-%m-%d}")
    return _check_validity(spec, signer, now=now, events=(renewed,) if current is not None else ())


def _check_validity(
    spec: InternalAuthority, signer: Signer, *, now: datetime, events: tuple[Event, ...] = ()
) -> ActiveAuthority:
    if signer.not_after <= now:
        raise InvalidAuthority(
            "Expired",
            f"the chain of the CA ended at {signer.not_after:%Y-%m-%dT%H:%M:%SZ} and its issuer cannot extend it",
        )
    upcoming = (each for each in (renewal_time(signer.certificate), signer.not_after) if each > now)
    type_ = "Root" if spec.issuer_ref is None else "Intermediate"
    return ActiveAuthority(type_, ISSUED, signer, events, earliest(*upcoming))


def _load_current(
    authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot, *, now: datetime
) -> tuple[PrivateKey, Signer | None]:
    """Return the existing key and certificate; generate a key only if there has never been one."""
    if spec.key_store is not None:
        stored = load_stored(authority, spec, snapshot)
        return stored.key, stored.current
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
        if lost := describe_lost_key(authority, spec, where):
            raise InvalidAuthority(KEY_LOST, lost)
        return snapshot.choices.once(lambda: generate_key(spec.private_key.algorithm, spec.private_key.size)), None
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
        if KEY_STORE not in secret.data and is_same_authority(secret, spec, issuer):
            return secret
    return None


def has_kept_key(authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime) -> bool:
    """Whether an earlier object of this name was the same CA: its key takes a place already."""
    if authority.spec.internal is not None and authority.spec.internal.key_store is not None:
        return has_kept_location(authority, authority.spec.internal, snapshot)
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
    if issuer.spec.external is not None:
        raise InvalidAuthority("IssuerNotReady", f"CertificateAuthority {namespace}/{name} is external")
    secret = snapshot.internal_secret(signing_key_name(issuer.metadata.uid))
    if secret is None or not is_true(issuer.status.conditions, READY):
        if cycle := find_cycle(authority, snapshot):
            raise InvalidAuthority(ISSUER_CYCLE, describe_cycle(cycle, namespace))
        raise InvalidAuthority("IssuerNotReady", f"CertificateAuthority {namespace}/{name} is not ready")
    signer = issuer_in(secret, snapshot) or load_signer(
        secret.data.get(TLS_CERTIFICATE, b""), secret.data.get(TLS_PRIVATE_KEY, b"")
    )
    if signer.not_after <= now:
        raise InvalidAuthority("IssuerNotReady", f"CertificateAuthority {namespace}/{name} has expired")
    return signer


def _template(
    authority: CertificateAuthority,
    spec: InternalAuthority,
    issuer: Signer | None,
    snapshot: Snapshot,
    *,
    now: datetime,
    entropy: Entropy,
) -> AuthorityTemplate:
    try:
        not_after = now + parse_duration(spec.duration)
        constraints = compile_constraints(spec.name_constraints)
    except InvalidRules as error:
        raise InvalidAuthority("InvalidNameConstraints", str(error)) from error
    except (ValueError, OverflowError) as error:
        raise InvalidAuthority("InvalidDuration", f"spec.internal.duration: {error}") from error
    crl_url, ca_url = None, None
    if spec.issuer_ref is not None and issuer is not None:
        above = (snapshot.settings.locations, authority.metadata.namespace, spec.issuer_ref.name)
        key_id = subject_key_id(issuer.certificate)
        crl_url, ca_url = revocation_list_url(*above, key_id), ca_certificate_url(*above, key_id)
    return AuthorityTemplate(
        common_name=spec.subject.common_name,
        subject=subject_attributes(spec.subject),
        serial=random_serial(entropy),
        not_before=now - BACKDATED,
        not_after=not_after if issuer is None else min(not_after, issuer.not_after),
        path_length=spec.path_length,
        constraints=constraints,
        crl_url=crl_url,
        ca_url=ca_url,
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
