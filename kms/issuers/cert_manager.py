"""CAs that are asked with a CertificateRequest of cert-manager: its own issuers, and those of other groups.

cert-manager tries a request once. Who may have it, its approver decides; the answer comes by the watch.
"""

from __future__ import annotations

from msgspec.structs import replace

from kms.cluster.client import Cluster
from kms.issuers.protocol import Answer, Denied, Failed, Pending, Refused, Returned, Submission
from kms.issuers.request_issuer import RequestIssuer
from kms.issuers.request_objects import APPROVED, ORDER_UID, RequestObjects, annotations_of, labels_of
from kms.resources.authorities import CertificateAuthority, IssuerRef
from kms.resources.certmanager import (
    CertificateRequest,
    CertificateRequestSpec,
    CertificateRequestStatus,
    RequestCondition,
)
from kms.resources.durations import format_duration, parse_duration
from kms.resources.kinds import CERTIFICATE_REQUESTS, ORDERS
from kms.resources.meta import ObjectMeta, OwnerReference


class CertManagerIssuer(RequestIssuer[CertificateRequest]):
    """An issuer behind cert-manager's API."""

    def __init__(
        self, authority: CertificateAuthority, requests: RequestObjects[CertificateRequest], cluster: Cluster
    ) -> None:
        external = authority.spec.external
        if external is None or external.cert_manager is None:
            raise ValueError("the CA is not asked through cert-manager")
        approves = external.approval == "Automatic"
        super().__init__(CERTIFICATE_REQUESTS, requests, cluster, approves=approves, subresource="status")
        self._issuer_ref = external.cert_manager.issuer_ref

    def _object(self, submission: Submission) -> CertificateRequest:
        return request_of(submission, self._issuer_ref)

    def _answer_of(self, request: CertificateRequest) -> Answer:
        return answer_of(request)

    def _approved(self, request: CertificateRequest, approval: RequestCondition) -> CertificateRequest | None:
        decided = (request.condition(each) for each in (APPROVED, "Denied", "Ready", "InvalidRequest"))
        if any(each is not None and each.status == "True" for each in decided):
            return None
        status: CertificateRequestStatus = replace(
            request.status, conditions=(*(request.status.conditions or ()), approval)
        )
        return replace(request, status=status)

    def _is_ours(self, request: CertificateRequest, submission: Submission) -> bool:
        try:
            duration = parse_duration(request.spec.duration or "")
        except ValueError:
            return False
        return (
            request.spec.request == self._object(submission).spec.request
            and request.spec.issuer_ref == self._issuer_ref
            and duration == submission.duration
            and request.metadata.labels.get(ORDER_UID) == submission.order_uid
        )


def request_of(submission: Submission, issuer_ref: IssuerRef) -> CertificateRequest:
    """The CertificateRequest that asks this issuer."""
    namespace, order = submission.order
    owner = OwnerReference(
        api_version=ORDERS.api_version,
        kind=ORDERS.kind,
        name=order,
        uid=submission.order_uid,
        controller=True,
        block_owner_deletion=False,
    )
    return CertificateRequest(
        metadata=ObjectMeta(
            namespace=namespace,
            name=submission.name,
            labels=labels_of(submission),
            annotations=annotations_of(submission),
            owner_references=(owner,),
        ),
        spec=CertificateRequestSpec(
            request=submission.pem,
            issuer_ref=issuer_ref,
            duration=format_duration(submission.duration),
            usages=submission.usages,
        ),
    )


def answer_of(request: CertificateRequest) -> Answer:
    """What a CertificateRequest says, by its conditions. Whatever is not final is Pending."""
    denied, invalid = request.condition("Denied"), request.condition("InvalidRequest")
    ready = request.condition("Ready")
    match ready and (ready.status, ready.reason):
        case _ if denied is not None and denied.status == "True":
            answer: Answer = Denied(denied.words)
        case _ if invalid is not None and invalid.status == "True":
            answer = Refused(invalid.words)
        case ("True", _) if request.status.certificate:
            answer = Returned(request.status.certificate)
        case ("False", "Denied") if ready is not None:
            answer = Denied(ready.words)
        case ("False", "Failed") if ready is not None:
            answer = Failed(ready.words)
        case _:
            answer = _pending(request, ready)
    return answer


def _pending(request: CertificateRequest, ready: RequestCondition | None) -> Pending:
    approved = request.condition(APPROVED)
    asked = f"CertificateRequest {request.metadata.name} for {_name(request)}"
    if approved is None or approved.status != "True":
        return Pending("WaitingForApproval", f"{asked} is not approved.")
    return Pending("WaitingForIssuer", f"{asked}: {ready.words if ready is not None else 'no answer yet'}")


def _name(request: CertificateRequest) -> str:
    ref = request.spec.issuer_ref
    return f"{ref.kind} {ref.name}" if ref.group == "cert-manager.io" else f"{ref.kind}.{ref.group} {ref.name}"
