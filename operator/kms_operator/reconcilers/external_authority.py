"""CertificateAuthority of type external: whether its issuer can be asked, and what clients have to trust.

The operator signs nothing here and asks for no certificate. It tells the server, by Ready, whether to ask; it publishes
the CA's first trust anchor, or the chain that the issuer tells; and it hands over what the server logs in with.

Ready becomes False only when two looks in a row have failed: orders wait anyway, and an issuer that blinks must not
stop new ones. It becomes True at once, and also False if what is wrong does not pass by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

import msgspec
from cryptography import x509

from kms.contract import NOTIFICATIONS, READY, TRUST_PUBLISHED
from kms.issuers.remote import authority_type
from kms.pki.ca import (
    InvalidAuthority,
    TrustAnchors,
    check_trust_anchors,
    former_roots,
    subject_key_id,
)
from kms.pki.certificate import certificate_pem
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import AuthorityStatus, CertificateAuthority, ExternalAuthority, FormerRoot
from kms.resources.core import Secret
from kms.resources.kept import FORMER_ROOT_CERTIFICATES, FORMER_ROOTS
from kms.resources.kinds import AUTHORITIES, SECRETS
from kms.resources.meta import Condition, condition
from kms.resources.retained import NAMESPACE_NOT_ALLOWED, SECRET_LIMIT_REACHED, is_reduced
from kms.resources.secret_names import CHAIN, COMPONENT, ISSUER_CREDENTIALS, signing_key_name
from kms_operator.objects import internal_secret, secret_changes
from kms_operator.observation import Observation, Observed
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
    transition_events,
    with_refusals,
)
from kms_operator.reconcilers.internal_authority import RENEWED
from kms_operator.reconcilers.issuer_change import is_published
from kms_operator.reconcilers.rules_without_effect import warnings
from kms_operator.reconcilers.served_profiles import former_roots_annotations, proven_former_roots, recorded_chain
from kms_operator.shares import secret_limit_reached
from kms_operator.snapshot import Read, Snapshot

OBSERVED = "Observed"
ASSUMED = "Assumed"
ISSUER_OBSERVED = "IssuerObserved"
"""The condition beside Ready: what the last look has found."""
FLAWED_TRUST_ANCHOR = "FlawedTrustAnchor"
INVALID_CHAIN = "InvalidChain"
LOOKS: Final = 2
"""Looks in a row that must have failed before Ready becomes False."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def reads(authority: CertificateAuthority, snapshot: Snapshot) -> Iterator[Read]:
    """The Secret with the credentials, and with what proves published roots, if the CA may have one."""
    external = authority.spec.external
    if external is not None and _has_secret(authority, external) and _is_allowed(authority, snapshot):
        yield Read(SECRETS, snapshot.settings.namespace, signing_key_name(authority.metadata.uid))


def plan(authority: CertificateAuthority, external: ExternalAuthority, snapshot: Snapshot, *, now: datetime) -> Plan:
    """State whether the server may ask the CA, hand over credentials, and say when to look again."""
    existing = _credentials(authority, snapshot)
    if not _is_allowed(authority, snapshot):
        refusal = not_ready(NAMESPACE_NOT_ALLOWED, _not_allowed(authority))
        report = partial(_refuse, authority, refusal, now=now)
        return replace(report(), delete=_manifests(existing), on_refusals=report)
    if is_reduced(authority):
        # The cache has not got its trust anchors. The write of this status brings them.
        return _refuse(authority, not_ready("Pending", "the CA is about to come into force"), now=now)
    try:
        anchors = check_trust_anchors(external.trust_anchors, now=now) if external.trust_anchors else None
    except InvalidAuthority as error:
        return _refuse(authority, not_ready(error.reason, str(error)), now=now)
    needs_secret = external.vault is not None and existing is None
    if needs_secret and (message := secret_limit_reached(authority.metadata.namespace, snapshot)):
        return _refuse(authority, not_ready(SECRET_LIMIT_REACHED, message), now=now)
    found = snapshot.observations.get(authority.metadata.uid)
    if found is None or found.generation != authority.metadata.generation:
        return Plan(look=True)  # what is stated holds until then
    planned, published = _state(authority, anchors, found, existing, now=now)
    return replace(
        planned,
        apply=_handed_over(authority, existing, found.latest.credentials, published, snapshot),
        look=now >= found.due,
        requeue_at=earliest(planned.requeue_at, found.due if now < found.due else None),
        on_refusals=partial(_report_refusals, authority, now=now),
    )


def _state(
    authority: CertificateAuthority,
    anchors: TrustAnchors | None,
    found: Observed,
    existing: Secret | None,
    *,
    now: datetime,
) -> tuple[Plan, AuthorityStatus | None]:
    """Return status and events after a look; and the status once more if it has what the look has found."""
    generation, old = authority.metadata.generation, authority.status.conditions
    latest = found.latest
    seen = ConditionUpdate(latest.status, latest.reason, latest.message, ISSUER_OBSERVED)
    flaws = warnings(anchors.flaws if anchors is not None else (), reason=FLAWED_TRUST_ANCHOR)
    if latest.status == "False":
        before = _standing(authority)
        if before is not None and found.failures < LOOKS and not latest.is_definite:
            stated = ConditionUpdate(before.status, before.reason, before.message)
        else:
            stated = not_ready(latest.reason, latest.message)
        return _with_conditions(authority, (stated, seen, *flaws), now=now), None
    try:
        chain = _chain(latest, anchors)
    except InvalidAuthority as error:
        return _with_conditions(authority, (not_ready(error.reason, str(error)), seen, *flaws), now=now), None
    stated = ready(OBSERVED if latest.status == "True" else ASSUMED, latest.message)
    updates = (stated, seen, *flaws)
    first, pems = chain[0], [certificate_pem(each) for each in chain]
    status = AuthorityStatus(
        observed_generation=carried_out(
            authority.status.observed_generation, generation, complete=is_published(authority)
        ),
        type=authority_type(authority),
        subject=first.subject.rfc4514_string(),
        certificate=pems[0],
        chain="".join(pems),
        serial_number=f"{first.serial_number:x}",
        subject_key_id=subject_key_id(first),
        not_before=first.not_valid_before_utc,
        not_after=first.not_valid_after_utc,
        former_roots=_former_roots(authority, existing, "".join(pems), now=now),
        conditions=merge_conditions(
            old, updates, generation=generation, now=now, keep=(TRUST_PUBLISHED, NOTIFICATIONS)
        ),
    )
    planned = Plan(
        status=status,
        events=(*(event for each in updates for event in transition_events(old, each)), *_renewed(authority, first)),
        requeue_at=earliest(*(each.not_valid_after_utc for each in (*chain, *(anchors.valid if anchors else ())))),
    )
    return planned, status


def _with_conditions(authority: CertificateAuthority, updates: Sequence[ConditionUpdate], *, now: datetime) -> Plan:
    """State conditions, and leave what is published as it is."""
    generation, old = authority.metadata.generation, authority.status.conditions
    conditions = merge_conditions(old, updates, generation=generation, now=now, keep=(TRUST_PUBLISHED, NOTIFICATIONS))
    status = msgspec.structs.replace(
        authority.status, type=authority_type(authority), observed_generation=generation, conditions=conditions
    )
    return Plan(status=status, events=tuple(event for each in updates for event in transition_events(old, each)))


def _refuse(
    authority: CertificateAuthority, update: ConditionUpdate, refusals: Sequence[Refusal] = (), *, now: datetime
) -> Plan:
    """State why nothing was looked at, and what the API server has refused."""
    return _with_conditions(authority, (with_refusals(update, refusals),), now=now)


def _standing(authority: CertificateAuthority) -> Condition | None:
    """Return Ready if it is True for this version of the CA."""
    found = condition(authority.status.conditions, READY)
    if found is None or found.status != "True" or found.observed_generation != authority.metadata.generation:
        return None
    return found


def _chain(latest: Observation, anchors: TrustAnchors | None) -> Sequence[x509.Certificate]:
    """Return what the status publishes: the chain that the issuer tells, or the first trust anchor.

    Raises InvalidAuthority if there is neither.
    """
    if latest.chain:
        try:
            return x509.load_pem_x509_certificates(latest.chain.encode())
        except PARSER_ERRORS:
            raise InvalidAuthority(INVALID_CHAIN, "the issuer's chain of certificates cannot be read") from None
    if anchors is None:
        raise InvalidAuthority(
            "InvalidTrustAnchors", "the issuer tells no chain; set spec.external.trustAnchors to the CA's root (PEM)"
        )
    return anchors.valid[:1]


def _former_roots(
    authority: CertificateAuthority, existing: Secret | None, chain: str, *, now: datetime
) -> tuple[FormerRoot, ...]:
    """Return the former roots that the Secret proves, and the root that it has until now, if that is replaced."""
    kept = former_roots(proven_former_roots(authority, existing), recorded_chain(existing), chain, now=now)
    return tuple(FormerRoot(certificate=each.pem, replaced_at=each.replaced_at) for each in kept)


def _renewed(authority: CertificateAuthority, certificate: x509.Certificate) -> tuple[Event, ...]:
    """Return an Event if another certificate has taken the place of the one in the status."""
    if authority.status.certificate in {None, certificate_pem(certificate)}:
        return ()
    subject, end = certificate.subject.rfc4514_string(), certificate.not_valid_after_utc
    return (Event(RENEWED, f"the certificate of the CA is now that of {subject}, until {end:{_TIME}}"),)


def _credentials(authority: CertificateAuthority, snapshot: Snapshot) -> Secret | None:
    """Return the Secret with the credentials of this CA, if there is one."""
    found = snapshot.internal_secret(signing_key_name(authority.metadata.uid))
    return found if found is not None and found.metadata.labels.get(COMPONENT) == ISSUER_CREDENTIALS else None


def _has_secret(authority: CertificateAuthority, external: ExternalAuthority) -> bool:
    """Whether the CA needs a Secret: for credentials, or to prove the roots that it publishes."""
    return external.vault is not None or authority.spec.trust is not None


def _handed_over(
    authority: CertificateAuthority,
    existing: Secret | None,
    credentials: Mapping[str, bytes] | None,
    published: AuthorityStatus | None,
    snapshot: Snapshot,
) -> tuple[Manifest, ...]:
    """Return the Secret to write, if the look has found other credentials, or publishes other roots, than it has."""
    held = dict(existing.data) if existing is not None else {}
    chain, annotations = held.pop(CHAIN, None), {}
    if existing is not None:
        recorded = (FORMER_ROOTS, FORMER_ROOT_CERTIFICATES)
        annotations = {name: text for name, text in existing.metadata.annotations.items() if name in recorded}
    external = authority.spec.external
    if published is not None and external is not None and _has_secret(authority, external):
        chain = (published.chain or "").encode()
        annotations = former_roots_annotations(published.former_roots)
    data = {**(held if credentials is None else credentials), **({CHAIN: chain} if chain else {})}
    namespace = authority.metadata.namespace
    if not data or (existing is None and secret_limit_reached(namespace, snapshot)):
        return ()
    wanted = internal_secret(
        snapshot.settings.namespace,
        signing_key_name(authority.metadata.uid),
        component=ISSUER_CREDENTIALS,
        owner=authority,
        kind=AUTHORITIES,
        annotations=annotations,
        data=data,
    )
    return secret_changes(existing, wanted)


def _manifests(existing: Secret | None) -> tuple[Manifest, ...]:
    return () if existing is None else (Manifest(SECRETS, existing),)


def _report_refusals(authority: CertificateAuthority, refusals: Sequence[Refusal], *, now: datetime) -> Plan:
    """State that the API server has refused the Secret with the credentials."""
    return _refuse(authority, not_ready(refusals[0].reason, refusals[0].message), now=now)


def _is_allowed(authority: CertificateAuthority, snapshot: Snapshot) -> bool:
    return snapshot.settings.allows_external_authorities(authority.metadata.namespace)


def _not_allowed(authority: CertificateAuthority) -> str:
    namespace = authority.metadata.namespace
    return (
        f"CertificateAuthorities of namespace {namespace} must not be external; to allow that, start the operator with"
        f" --external-authorities-from {namespace} (in the chart externalAuthorities.from)"
    )
