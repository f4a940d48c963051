"""Internal CAs that an external one certifies: `spec.internal.issuerRef` names a CA of cert-manager, Vault or OpenBao.

The operator asks for the certificate, and again when it is due. Its answer is a claim, as that of people is
(`requested_authority`): it must be for this key and lead to a trust anchor of the external CA. A CA with a valid
certificate goes on with it while the other one does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from kms.contract import READY, RENEWAL_DUE
from kms.pki.ca import (
    Asked,
    InvalidAuthority,
    check_answer,
    check_installed,
    check_trust_anchors,
    complete_chain,
    read_answer,
    renewal_due,
)
from kms.pki.certificate import Signer
from kms.pki.keys import PrivateKey
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import CertificateAuthority, ExternalAuthority, InternalAuthority
from kms.resources.durations import parse_duration
from kms.resources.meta import is_true
from kms.resources.retained import NAMESPACE_NOT_ALLOWED, is_reduced
from kms.resources.secret_names import signing_key_name
from kms_operator.plan import RESYNC, ConditionUpdate, earliest
from kms_operator.questions import CertifyAuthority
from kms_operator.reconcilers.requested_authority import (
    RECONCILED,
    CertifiedAuthority,
    Chain,
    WaitingAuthority,
    chain_changes,
    end_of,
    request_of,
)
from kms_operator.snapshot import Snapshot

ISSUER_NOT_READY = "IssuerNotReady"
ISSUER_LOOPS = "IssuerLoops"
LARGEST: Final = 128 * 1024
"""Octets of an answer; four certificates with large names have less."""
SOON: Final = timedelta(seconds=5)
"""Until the next look at a request that somebody is working at."""

_UNDER_WAY = frozenset({"Pending", "WaitingForApproval", "WaitingForIssuer"})
_MARGIN = timedelta(minutes=1)
"""How far the clock of the other CA may be ahead."""
_RESTS: Final = timedelta(minutes=1)
"""A new certificate that is due earlier than this changes nothing: it would be followed by the next one, and so on."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class _Above:
    """An external CA by name, its trust anchors, and its chain where the operator has read it."""

    name: str
    anchors: Chain
    chain: Chain

    @property
    def ends(self) -> datetime:
        """When it ends at the latest, as far as that is known."""
        return end_of(self.chain) if self.chain else max(each.not_valid_after_utc for each in self.anchors)


def external_issuer(
    authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot
) -> CertificateAuthority | None:
    """Return the external CA that certifies this one; None if an internal or imported one does, or nobody."""
    if spec.issuer_ref is None:
        return None
    found = snapshot.authority(spec.issuer_ref, namespace=authority.metadata.namespace)
    return found if found is not None and found.spec.external is not None else None


def use_issued(
    authority: CertificateAuthority,
    spec: InternalAuthority,
    key: PrivateKey,
    current: Signer | None,
    snapshot: Snapshot,
    *,
    issuer: CertificateAuthority,
    now: datetime,
) -> CertifiedAuthority | WaitingAuthority:
    """Decide which chain the CA signs with: the one that it has, or a new one, for which the external CA is asked.

    Raises InvalidAuthority if the spec cannot be requested.
    """
    asked, request = request_of(authority, spec, key)
    used = _usable(current, asked, key, now=now)
    try:
        above = _trusted(issuer, snapshot, now=now)
    except InvalidAuthority as error:
        return _go_on(used, key, request, error, is_due=used is not None and now >= renewal_due(used), now=now)
    if used is not None and not _is_due(used, asked, key, above.anchors, now=now):
        return _certified(used, request, now=now)
    if used is None and snapshot.internal_secret(signing_key_name(authority.metadata.uid)) is None:
        # A certificate for a key that is lost in the next moment would be worth nothing.
        return WaitingAuthority(key, request, "Pending", f"{_name(issuer)} is about to be asked", now)
    question = CertifyAuthority(
        request=request,
        issuer_version=(issuer.metadata.uid, issuer.metadata.generation),
        replaces=0 if used is None else used[0].serial_number,
        issuer=issuer,
        authority=authority,
        duration=_duration(spec, above, now=now),
    )
    try:
        answer = snapshot.ask(question)
        if not isinstance(answer, bytes):
            raise TypeError("the answer has no certificate")
        taken = _accept(answer, above, asked, key, now=now)
        if used is not None:
            _check_rests(taken, above, now=now)
    except InvalidAuthority as error:
        return _go_on(used, key, request, error, is_due=True, now=now)
    certified = _certified(taken, request, now=now)
    return replace(certified, events=tuple(chain_changes(used, taken)))


def _usable(current: Signer | None, asked: Asked, key: PrivateKey, *, now: datetime) -> Chain | None:
    if current is None:
        return None
    chain = (current.certificate, *current.issuers)
    try:
        check_installed(chain, asked.name, key.public_key(), now=now)
    except InvalidAuthority:
        return None
    return chain


def _is_due(used: Chain, asked: Asked, key: PrivateKey, anchors: Sequence[x509.Certificate], *, now: datetime) -> bool:
    """Whether to ask again: the chain ends soon, leads elsewhere, or lacks a limit that the spec has now."""
    if now >= renewal_due(used) or used[-1] not in anchors:
        return True
    try:
        check_answer(used, asked, key.public_key(), now=now)
    except InvalidAuthority:
        return True
    return False


def _trusted(issuer: CertificateAuthority, snapshot: Snapshot, *, now: datetime) -> _Above:
    """Return what the external CA's answer must lead to.

    The trust anchors are those of the spec, or what a look has found: a status may be written by others. Raises
    InvalidAuthority if the CA must not or cannot be asked.
    """
    external, namespace = issuer.spec.external or ExternalAuthority(), issuer.metadata.namespace
    if not snapshot.settings.allows_external_authorities(namespace):
        raise InvalidAuthority(
            NAMESPACE_NOT_ALLOWED, f"{_name(issuer)} is external, which namespace {namespace} does not allow"
        )
    if external.signer is not None:
        raise InvalidAuthority(
            "IssuerUnsuitable",
            f"{_name(issuer)} is a signer of Kubernetes, which signs no CAs; create this one again with"
            ' "signedBy: Request", and have the CA behind the signer sign status.request',
        )
    if is_reduced(issuer) or not is_true(issuer.status.conditions, READY):
        raise InvalidAuthority(ISSUER_NOT_READY, f"{_name(issuer)} is not ready")
    observed = snapshot.observations.get(issuer.metadata.uid)
    is_current = observed is not None and observed.generation == issuer.metadata.generation
    chain = _certificates(observed.latest.chain) if observed is not None and is_current else ()
    if external.trust_anchors:
        return _Above(_name(issuer), check_trust_anchors(external.trust_anchors, now=now).valid, chain)
    if not chain:
        raise InvalidAuthority(ISSUER_NOT_READY, f"{_name(issuer)} has not been looked at yet")
    return _Above(_name(issuer), chain[-1:], chain)


def _duration(spec: InternalAuthority, above: _Above, *, now: datetime) -> timedelta:
    """Return what to ask for: not longer than the CA itself lasts, as far as that is known."""
    try:
        wanted = parse_duration(spec.duration)
    except ValueError as error:
        raise InvalidAuthority("InvalidDuration", f"spec.internal.duration: {error}") from error
    return max(_MARGIN, min(wanted, above.ends - now - _MARGIN))


def _accept(answer: bytes, above: _Above, asked: Asked, key: PrivateKey, *, now: datetime) -> Chain:
    """Return the chain up to a trust anchor. Raises InvalidAuthority, with the reason of the check that fails."""
    try:
        if len(answer) > LARGEST:
            raise InvalidAuthority("InvalidCertificate", f"it has more than {LARGEST} octets")  # noqa: TRY301
        chain = complete_chain(read_answer(answer.decode("ascii", "replace")), (*above.chain, *above.anchors))
        last = next((position for position, each in enumerate(chain) if each in above.anchors), len(chain) - 1)
        chain = chain[: last + 1]
        if chain[0].issuer == asked.name or any(each.public_key() == key.public_key() for each in chain[1:]):
            raise InvalidAuthority(  # noqa: TRY301 - as above
                ISSUER_LOOPS, "it is signed by this very CA; let issuerRef name a CA that is not below this one"
            )
        check_answer(chain, asked, key.public_key(), now=now)
        if chain[-1] not in above.anchors:
            raise InvalidAuthority(  # noqa: TRY301 - as above
                "ChainBroken", "it leads to none of its trust anchors; check spec.external.trustAnchors"
            )
    except InvalidAuthority as error:
        message = f"{above.name} has returned a certificate that cannot be used: {error}"
        raise InvalidAuthority(error.reason, message) from None
    return chain


def _check_rests(taken: Chain, above: _Above, *, now: datetime) -> None:
    """Raise InvalidAuthority unless the new chain lasts for a while: it is to take the place of a valid one."""
    due = renewal_due(taken)
    if due < now + _RESTS:
        raise InvalidAuthority(
            "DueAtOnce",
            f"{above.name} has returned a certificate that is due for renewal at {due:{_TIME}} already; let that CA"
            " sign CAs that are valid from now on and for longer, and let none above them end soon",
        )


def _go_on(
    used: Chain | None, key: PrivateKey, request: str, error: InvalidAuthority, *, is_due: bool, now: datetime
) -> CertifiedAuthority | WaitingAuthority:
    """Go on with the chain that the CA has, or state why it has none."""
    again = now + (SOON if error.reason in _UNDER_WAY else RESYNC)
    if used is None:
        return WaitingAuthority(key, request, error.reason, str(error), again)
    if not is_due:  # the other CA is not needed now
        return replace(_certified(used, request, now=now), requeue_at=again)
    conditions = [ConditionUpdate("False", error.reason, f"no new certificate: {error}", RECONCILED)]
    if now >= renewal_due(used):
        message = f"the chain of the CA ends at {end_of(used):{_TIME}}; {error}"
        conditions.append(ConditionUpdate("True", "CertificateEnds", message, RENEWAL_DUE))
    return CertifiedAuthority(used, request, tuple(conditions), (), again)


def _certified(chain: Chain, request: str, *, now: datetime) -> CertifiedAuthority:
    upcoming = (each for each in (renewal_due(chain), end_of(chain)) if each > now)
    return CertifiedAuthority(chain, request, (), (), earliest(*upcoming))


def _certificates(pem: str) -> Chain:
    try:
        return tuple(x509.load_pem_x509_certificates(pem.encode())) if pem else ()
    except PARSER_ERRORS:
        return ()


def _name(issuer: CertificateAuthority) -> str:
    return f"CertificateAuthority {issuer.metadata.namespace}/{issuer.metadata.name}"
