"""What is asked of an external CA, and what is expected of its answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from acme_server.model import Profile
from acme_server.orders.identifiers import names_of
from acme_server.orders.issuance_waiting import asked_duration
from acme_server.orders.lifetimes import accepted_at
from acme_server.problems import ProblemType, Refused
from kms.issuers.protocol import Submission
from kms.pki.csr import CertificateRequest
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.returned import Expected
from kms.pki.verbatim import requested_usages, verbatim_violations
from kms.resources.authorities import CertificateAuthority
from kms.resources.compile import subject_attributes
from kms.resources.durations import parse_duration
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder

DEFAULT_TIMEOUT: Final = timedelta(minutes=10)
_MARGIN: Final = timedelta(minutes=1)
"""Until the CA signs, and how far its clock may be ahead: a certificate must not outlast the CA by that."""
_SHOWN: Final = 5


def require_verbatim(order: ACMEOrder, request: CertificateRequest, profile: Profile) -> None:
    """Check a request that the profile's CA gets unchanged.

    Raises Refused: badCSR for what the CA could copy, and malformed for dates that this kind of CA cannot honour.
    """
    external = profile.authority.spec.external
    if order.spec.not_after is not None and external is not None and external.vault is None:
        raise Refused(ProblemType.MALFORMED, "The issuing CA takes no notAfter.")
    contents = profile.resource.spec.certificate
    violations = verbatim_violations(
        request,
        usages=contents.usages,
        subject=subject_attributes(contents.subject),
        policy=profile.policy,
        purposes_apart=_purposes_apart(profile.authority),
    )
    if violations:
        more = f"; and {len(violations) - _SHOWN} more" if len(violations) > _SHOWN else ""
        raise Refused(ProblemType.BAD_CSR, "; ".join(each.message for each in violations[:_SHOWN]) + more + ".")


def _purposes_apart(authority: CertificateAuthority) -> bool:
    """Signers of Kubernetes follow spec.usages, and Vault its role; cert-manager wants both to say the same."""
    return authority.spec.external is not None and authority.spec.external.cert_manager is None


def timeout_of(authority: CertificateAuthority | None) -> timedelta:
    """How long an order waits for the CA; by default for one that is gone, or whose timeout cannot be read."""
    if authority is None or authority.spec.external is None:
        return DEFAULT_TIMEOUT
    try:
        return parse_duration(authority.spec.external.timeout)
    except ValueError:
        return DEFAULT_TIMEOUT


def submission_of(
    order: ACMEOrder, request: CertificateRequest, profile: Profile, *, ends: datetime | None
) -> Submission:
    """What is asked for by the order's attempt. `ends`: when the CA ends, if that is known.

    It follows from what is stored, so replicas ask for the same. The duration is zero or less if the CA has ended.
    """
    issuance, accepted = order.status.issuance, order.status.accepted
    if issuance is None or issuance.request is None or accepted is None:
        raise ValueError("the order does not wait for a CA")
    limits = [each and each - _MARGIN for each in (ends, issuance.not_after)]
    duration = asked_duration(
        profile.duration,
        maximum=profile.policy.maximum_duration,
        ends=[*limits, order.spec.not_after],
        now=issuance.not_before or accepted,
    )
    return Submission(
        name=issuance.request,
        order=key_of(order),
        order_uid=order.metadata.uid,
        attempt=issuance.attempt,
        request=request.der,
        usages=requested_usages(
            request, profile.resource.spec.certificate.usages, purposes_apart=_purposes_apart(profile.authority)
        ),
        duration=duration,
        not_after=order.spec.not_after,
    )


def since(order: ACMEOrder, *, now: datetime) -> datetime:
    """The time from which the order waits for the CA: when its CSR was accepted, and never one that has not come."""
    return accepted_at(order, now=now) or order.metadata.creation_timestamp or now


def expected_of(
    order: ACMEOrder, request: CertificateRequest, profile: Profile, submission: Submission, *, now: datetime
) -> Expected:
    """What the certificate must be like that the CA returns."""
    contents = profile.resource.spec.certificate
    return Expected(
        request=request,
        names=frozenset(names_of(order.spec.identifiers)),
        usages=frozenset(contents.usages),
        subject=subject_attributes(contents.subject),
        policy=profile.policy,
        duration=submission.duration,
        accepted=since(order, now=now),
    )


def trust_anchors(authority: CertificateAuthority) -> tuple[x509.Certificate, ...]:
    """Where the chain of what the CA returns must end. Without configured anchors it is the root that the CA has said.

    Certificates that cannot be read are no anchors.
    """
    configured = authority.spec.external.trust_anchors if authority.spec.external is not None else ()
    if configured:
        return tuple(each for text in configured for each in certificates_in(text))
    return tuple(each for each in known_chain(authority) if each.subject == each.issuer)


def known_chain(authority: CertificateAuthority) -> tuple[x509.Certificate, ...]:
    """The certificates of the CA, as far as the operator knows them."""
    return certificates_in(authority.status.chain or authority.status.certificate or "")


def certificates_in(pem: str) -> tuple[x509.Certificate, ...]:
    """The certificates in PEM; none if they cannot be read."""
    try:
        return tuple(x509.load_pem_x509_certificates(pem.encode()))
    except PARSER_ERRORS:
        return ()


def end_of(chain: Sequence[x509.Certificate]) -> datetime | None:
    """When the first certificate of the chain ends."""
    return min((each.not_valid_after_utc for each in chain), default=None)
