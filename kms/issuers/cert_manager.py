"""CAs that are asked with a CertificateRequest of cert-manager: its own issuers, and those of other groups.

cert-manager tries a request once. Who may have it, its approver decides; the answer comes by the watch.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.issuers.protocol import Answer, Denied, Failed, Pending, Refused, Returned, Submission
from kms.issuers.request_objects import ORDER_UID, RequestObjects, annotations_of, answer_to_error, labels_of
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

APPROVED: Final = "Approved"
APPROVER: Final = "kms-acme"
"""The reason of an approval that this server gives itself."""


class CertManagerIssuer:
    """An issuer behind cert-manager's API. `approval` Automatic approves each request that was just made or compared.

    Reads and writes nothing before it is asked for a certificate.
    """

    def __init__(
        self, authority: CertificateAuthority, requests: RequestObjects[CertificateRequest], cluster: Cluster
    ) -> None:
        external = authority.spec.external
        if external is None or external.cert_manager is None:
            raise ValueError("the CA is not asked through cert-manager")
        self._issuer_ref = external.cert_manager.issuer_ref
        self._approves = external.approval == "Automatic"
        self._requests = requests
        self._cluster = cluster
        self._outcomes: dict[str, Answer] = {}
        """Of attempts to create or approve a request: what `look` is to say."""

    async def begin(self, submission: Submission) -> None:
        """Create the CertificateRequest. One of its name that asks for the same is ours."""
        outcome = await self._create(submission)
        if outcome is not None:
            self._outcomes[submission.name] = outcome

    async def look(self, submission: Submission) -> Answer:
        """What the CertificateRequest says. If somebody has deleted it, it is created again."""
        if (outcome := self._outcomes.pop(submission.name, None)) is not None:
            return outcome
        try:
            found = await self._requests.find(submission.order[0], submission.name)
        except errors.ClusterError as error:
            return answer_to_error(error)
        if found is None:
            return await self._create(submission) or Pending("WaitingForIssuer", "The request was created again.")
        if not self._is_ours(found, submission):
            return Failed("Another CertificateRequest has the name of this one.")
        return await self._approve(found, submission) or answer_of(found)

    async def forget(self, submission: Submission) -> None:
        """Delete the CertificateRequest. One that cannot be deleted is left to the sweep."""
        self._outcomes.pop(submission.name, None)
        await self._requests.discard(submission.order[0], submission.name)

    async def revoke(self, certificate: bytes) -> bool:  # noqa: ARG002 - cert-manager revokes nothing
        """Return False: cert-manager takes no revocations."""
        return False

    async def close(self) -> None:
        """Nothing is open: the watch belongs to all CAs of this kind."""

    async def _create(self, submission: Submission) -> Answer | None:
        """Create the request; None: it exists."""
        try:
            created = await self._requests.create(request_of(submission, self._issuer_ref))
        except errors.AlreadyExists:
            return None  # `look` compares it
        except errors.ClusterError as error:
            return answer_to_error(error)
        return await self._approve(created, submission)

    async def _approve(self, request: CertificateRequest, submission: Submission) -> Answer | None:
        """Approve a request of ours, if this CA's requests are approved here; None: there is nothing to say about it.

        Approvals are final, so the request has just been compared with what the order asks for.
        """
        decided = (request.condition(each) for each in (APPROVED, "Denied", "Ready", "InvalidRequest"))
        if not self._approves or any(each is not None and each.status == "True" for each in decided):
            return None
        namespace, name = submission.order
        approved = RequestCondition(
            type=APPROVED,
            status="True",
            reason=APPROVER,
            message=f"Approved for ACMEOrder {namespace}/{name}.",
        )
        conditions = (*(request.status.conditions or ()), approved)
        status: CertificateRequestStatus = replace(request.status, conditions=conditions)
        try:
            changed = await self._cluster.replace_status(CERTIFICATE_REQUESTS, replace(request, status=status))
        except errors.Conflict:  # the issuer or another replica was faster
            return Pending("WaitingForApproval", "The request is being approved.")
        except errors.Forbidden as error:
            return Pending("WaitingForApproval", f"This server may not approve the request: {error}")
        except errors.ClusterError as error:
            return Pending("WaitingForApproval", f"The request cannot be approved now: {error}")
        self._requests.take(changed)
        return None

    def _is_ours(self, request: CertificateRequest, submission: Submission) -> bool:
        asked = request_of(submission, self._issuer_ref).spec
        try:
            duration = parse_duration(request.spec.duration or "")
        except ValueError:
            return False
        return (
            request.spec.request == asked.request
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
    pem = x509.load_der_x509_csr(submission.request).public_bytes(Encoding.PEM)
    return CertificateRequest(
        metadata=ObjectMeta(
            namespace=namespace,
            name=submission.name,
            labels=labels_of(submission),
            annotations=annotations_of(submission),
            owner_references=(owner,),
        ),
        spec=CertificateRequestSpec(
            request=pem,
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
            answer: Answer = Denied(_message(denied))
        case _ if invalid is not None and invalid.status == "True":
            answer = Refused(_message(invalid))
        case ("True", _) if request.status.certificate:
            answer = Returned(request.status.certificate)
        case ("False", "Denied"):
            answer = Denied(_message(ready))
        case ("False", "Failed"):
            answer = Failed(_message(ready))
        case _:
            answer = _pending(request, ready)
    return answer


def _pending(request: CertificateRequest, ready: RequestCondition | None) -> Pending:
    approved = request.condition(APPROVED)
    asked = f"CertificateRequest {request.metadata.name} for {_name(request)}"
    if approved is None or approved.status != "True":
        return Pending("WaitingForApproval", f"{asked} is not approved.")
    return Pending("WaitingForIssuer", f"{asked}: {_message(ready) if ready is not None else 'no answer yet'}")


def _message(condition: RequestCondition | None) -> str:
    return "" if condition is None else condition.message or condition.reason or condition.type


def _name(request: CertificateRequest) -> str:
    ref = request.spec.issuer_ref
    return f"{ref.kind} {ref.name}" if ref.group == "cert-manager.io" else f"{ref.kind}.{ref.group} {ref.name}"
