"""Internal CAs that are certified by request: `spec.internal.signedBy: Request`.

A CA elsewhere signs `status.request`, and people put its answer into `spec.internal.certificate`. An answer that cannot
be used is not taken. If an earlier one is still valid, the CA goes on with that: it was checked, clients trust it, and
a typing error must not end issuance. For the same reason a certificate that is removed from the spec stays in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from kms.contract import RENEWAL_DUE, WAITING_FOR_CERTIFICATE, WARNINGS
from kms.pki.ca import (
    Asked,
    InvalidAuthority,
    certificate_request,
    check_answer,
    check_installed,
    complete_chain,
    is_request_for,
    read_answer,
    renewal_due,
)
from kms.pki.certificate import Signer, is_root
from kms.pki.keys import PrivateKey
from kms.pki.quoting import quoted
from kms.resources.authorities import CertificateAuthority, InternalAuthority
from kms.resources.compile import InvalidRules, compile_request
from kms_operator.plan import RESYNC, ConditionUpdate, Event, earliest

RECONCILED = "Reconciled"
FLAWED_CERTIFICATE = "FlawedCertificate"
RENEWED = "Renewed"
ROOT_CHANGED = "RootChanged"
_DUE = "CertificateEnds"
_TIME = "%Y-%m-%dT%H:%M:%SZ"

Chain = tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class WaitingAuthority:
    """A CA with a key and a request, but without a certificate that it can use: reason and message of Ready."""

    key: PrivateKey
    request: str
    reason: str
    message: str
    requeue_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CertifiedAuthority:
    """The chain that a CA signs with, the conditions beside Ready, and when to look again."""

    chain: Chain
    request: str
    conditions: tuple[ConditionUpdate, ...]
    events: tuple[Event, ...]
    requeue_at: datetime | None


def use_certificate(
    authority: CertificateAuthority,
    spec: InternalAuthority,
    key: PrivateKey,
    current: Signer | None,
    *,
    now: datetime,
) -> CertifiedAuthority | WaitingAuthority:
    """Decide which chain the CA signs with: that of the spec, else the one that it has signed with, `current`.

    Raises InvalidAuthority if the spec cannot be requested.
    """
    asked, request = request_of(authority, spec, key)
    taken, refusal = _take(spec, asked, key, now=now)
    used = None if current is None else (current.certificate, *current.issuers)
    if taken is None and used is not None:
        try:
            check_installed(used, asked.name, key.public_key(), now=now)
        except InvalidAuthority as error:
            refusal = refusal or error
        else:
            taken = used
    elif taken is not None and used is not None:
        taken = _complete(taken, used, asked, key, now=now)
    retry_at = now + RESYNC if refusal is not None and refusal.reason == "NotYetValid" else None
    commands = _commands(authority)
    if taken is None:
        if refusal is None:
            message = f"waits for spec.internal.certificate, the answer of a CA of yours to status.request; {commands}"
            return WaitingAuthority(key, request, WAITING_FOR_CERTIFICATE, message)
        message = f"spec.internal.certificate cannot be used: {refusal}; {commands}"
        return WaitingAuthority(key, request, refusal.reason, message, retry_at)
    due = renewal_due(taken)
    conditions = []
    if refusal is not None:
        message = f"spec.internal.certificate cannot be used: {refusal}; the CA goes on with its former certificate"
        conditions.append(ConditionUpdate("False", refusal.reason, message, RECONCILED))
    if now >= due:
        message = f"the chain of the CA ends at {end_of(taken):{_TIME}}; have the same key certified again: {commands}"
        conditions.append(ConditionUpdate("True", _DUE, message, RENEWAL_DUE))
    if not is_root(taken[-1]):
        message = (
            f"the chain of the CA ends with {_subject(taken[-1])}, which is no root, so clients are told to trust that;"
            " append the certificates above it up to the root to spec.internal.certificate"
        )
        conditions.append(ConditionUpdate("True", FLAWED_CERTIFICATE, message, WARNINGS))
    upcoming = (each for each in (due, end_of(taken)) if each > now)
    return CertifiedAuthority(
        chain=taken,
        request=request,
        conditions=tuple(conditions),
        events=tuple(chain_changes(used, taken)),
        requeue_at=earliest(retry_at, *upcoming),
    )


def describe_lost_key(authority: CertificateAuthority, spec: InternalAuthority, where: str) -> str | None:
    """Why no key must be made for a CA by request that has no certificate yet; None if it may get one.

    A certificate that was issued, or is about to be, is worth nothing with another key.
    """
    if authority.status.request is not None:
        return (
            f"{where} does not exist, so the private key of status.request is lost; restore it from a backup, or delete"
            " this CertificateAuthority and create it again: that makes a new key and a new request"
        )
    if spec.certificate is not None:
        return (
            "spec.internal.certificate is set, but no key for it exists; restore the Secret with the key from a backup,"
            " or remove spec.internal.certificate: then a new key is made, and status.request asks for its certificate"
        )
    return None


def request_of(authority: CertificateAuthority, spec: InternalAuthority, key: PrivateKey) -> tuple[Asked, str]:
    """Return what the CA asks for, and the request: the one in the status as long as it asks for that."""
    try:
        asked = compile_request(spec)
        published = authority.status.request
        if published is not None and is_request_for(published, asked, key.public_key()):
            return asked, published
        return asked, certificate_request(asked, key)
    except InvalidRules as error:
        raise InvalidAuthority("InvalidNameConstraints", str(error)) from error
    except ValueError as error:
        raise InvalidAuthority("InvalidSpec", f"spec.internal: {error}") from error


def _take(
    spec: InternalAuthority, asked: Asked, key: PrivateKey, *, now: datetime
) -> tuple[Chain | None, InvalidAuthority | None]:
    """Return the chain in the spec if it can be used, or why it cannot."""
    if spec.certificate is None:
        return None, None
    try:
        chain = read_answer(spec.certificate)
        check_answer(chain, asked, key.public_key(), now=now)
    except InvalidAuthority as error:
        return None, error
    return chain, None


def _complete(taken: Chain, used: Chain, asked: Asked, key: PrivateKey, *, now: datetime) -> Chain:
    """Return the chain, continued with what is known above it: a renewed certificate often comes alone.

    Otherwise clients would be told to trust the CA itself in place of its root.
    """
    whole = complete_chain(taken, used)
    try:
        check_installed(whole, asked.name, key.public_key(), now=now)
    except InvalidAuthority:
        return taken  # what is known has ended
    return whole


def chain_changes(before: Chain | None, after: Chain) -> Iterator[Event]:
    """Return what to tell about the new chain; nothing about the first one, since Ready does."""
    if before is None:
        return
    if before[0] != after[0]:
        yield Event(RENEWED, f"now uses another certificate for the same key, until {end_of(after):%Y-%m-%d}")
    if before[-1] != after[-1]:
        yield Event(
            ROOT_CHANGED,
            f"{_subject(after[-1])} takes the place of {_subject(before[-1])} as what clients are told to trust",
            "Warning",
        )


def _commands(authority: CertificateAuthority) -> str:
    name = f"{authority.metadata.namespace}/{authority.metadata.name}"
    return f"`kms-acme ca request {name}` prints the request, `kms-acme ca install {name} FILE` installs the answer"


def end_of(chain: Chain) -> datetime:
    """Return when the first certificate of the chain ends."""
    return min(each.not_valid_after_utc for each in chain)


def _subject(certificate: x509.Certificate) -> str:
    return quoted(certificate.subject.rfc4514_string())
