"""CAs that are asked with a CertificateSigningRequest of Kubernetes.

Requests belong to the cluster, so labels and an annotation say which order one is for. kube-controller-manager deletes
those that have been answered for an hour, or unanswered for a day.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from kms.cluster.client import Cluster
from kms.issuers.protocol import Answer, Denied, Failed, Pending, Refused, Returned, Submission
from kms.issuers.request_issuer import RequestIssuer
from kms.issuers.request_objects import APPROVED, ORDER_UID, RequestObjects, annotations_of, labels_of
from kms.resources.authorities import CertificateAuthority
from kms.resources.certmanager import RequestCondition
from kms.resources.kinds import SIGNING_REQUESTS
from kms.resources.meta import ObjectMeta
from kms.resources.signing_requests import CertificateSigningRequest, SigningRequestSpec, SigningRequestStatus

SHORTEST: Final = timedelta(seconds=600)
"""The API server refuses a request for less."""


class SignerIssuer(RequestIssuer[CertificateSigningRequest]):
    """A signer of Kubernetes."""

    def __init__(
        self, authority: CertificateAuthority, requests: RequestObjects[CertificateSigningRequest], cluster: Cluster
    ) -> None:
        external = authority.spec.external
        if external is None or external.signer is None:
            raise ValueError("the CA is not a signer of Kubernetes")
        approves = external.approval == "Automatic"
        super().__init__(SIGNING_REQUESTS, requests, cluster, approves=approves, subresource="approval")
        self._signer_name = external.signer.name

    def _object(self, submission: Submission) -> CertificateSigningRequest:
        return signing_request_of(submission, self._signer_name)

    def _objection(self, submission: Submission) -> Answer | None:
        if submission.duration >= SHORTEST:
            return None
        return Failed("A signer gives no certificate for less than 10 minutes.", is_final=True)

    def _answer_of(self, request: CertificateSigningRequest) -> Answer:
        return answer_of(request)

    def _approved(
        self, request: CertificateSigningRequest, approval: RequestCondition
    ) -> CertificateSigningRequest | None:
        decided = any(request.condition(each) is not None for each in (APPROVED, "Denied", "Failed"))
        if decided or request.status.certificate:
            return None
        status: SigningRequestStatus = replace(
            request.status, conditions=(*(request.status.conditions or ()), approval)
        )
        return replace(request, status=status)

    def _is_ours(self, request: CertificateSigningRequest, submission: Submission) -> bool:
        asked = self._object(submission).spec
        return (
            request.spec.request == asked.request
            and request.spec.signer_name == asked.signer_name
            and request.spec.expiration_seconds == asked.expiration_seconds
            and request.metadata.labels.get(ORDER_UID) == submission.order_uid
        )


def signing_request_of(submission: Submission, signer_name: str) -> CertificateSigningRequest:
    """The CertificateSigningRequest that asks this signer."""
    return CertificateSigningRequest(
        metadata=ObjectMeta(name=submission.name, labels=labels_of(submission), annotations=annotations_of(submission)),
        spec=SigningRequestSpec(
            request=submission.pem,
            signer_name=signer_name,
            expiration_seconds=int(submission.duration.total_seconds()),
            usages=submission.usages,
        ),
    )


def answer_of(request: CertificateSigningRequest) -> Answer:
    """What a CertificateSigningRequest says. Its conditions are never removed."""
    denied, failed = request.condition("Denied"), request.condition("Failed")
    if denied is not None:
        return Denied(denied.words)
    if failed is not None:
        words = failed.words
        return Refused(words) if failed.reason == "SignerValidationFailure" else Failed(words, is_final=True)
    if request.status.certificate:
        return Returned(request.status.certificate)
    asked = f"CertificateSigningRequest {request.metadata.name} for signer {request.spec.signer_name}"
    if request.condition(APPROVED) is None:
        return Pending("WaitingForApproval", f"{asked} is not approved.")
    return Pending("WaitingForIssuer", f"{asked} is approved; the signer has not answered yet.")
