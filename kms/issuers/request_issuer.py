"""CAs that are asked with an object of the Kubernetes API: what its kinds have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Literal, TypeVar

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.issuers.protocol import Answer, Failed, Pending, Submission
from kms.issuers.request_objects import APPROVED, APPROVER, RequestObjects, answer_to_error
from kms.resources.certmanager import RequestCondition
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)


class RequestIssuer(ABC, Generic[T]):
    """Makes an object for each submission, and reads the answer from it.

    With `approves` it approves each request of its own, just after it was made or compared with what is asked for:
    approvals are final. Nothing is read or written before a certificate is asked for.
    """

    def __init__(
        self,
        kind: Kind[T],
        requests: RequestObjects[T],
        cluster: Cluster,
        *,
        approves: bool,
        subresource: Literal["status", "approval"],
    ) -> None:
        """`subresource` is the part of an object that approvals are written to."""
        self._kind = kind
        self._requests = requests
        self._cluster = cluster
        self._approves = approves
        self._subresource = subresource
        self._outcomes: dict[str, Answer] = {}
        """Of attempts to create or approve a request: what `look` is to say."""

    async def begin(self, submission: Submission) -> None:
        """Create the request. One of its name that asks for the same is ours."""
        outcome = await self._create(submission)
        if outcome is not None:
            self._outcomes[submission.name] = outcome

    async def look(self, submission: Submission) -> Answer:
        """What the request says. If somebody has deleted it, it is created again."""
        if (outcome := self._outcomes.pop(submission.name, None)) is not None:
            return outcome
        try:
            found = await self._requests.find(submission.order[0], submission.name)
        except errors.ClusterError as error:
            return answer_to_error(error)
        if found is None:
            return await self._create(submission) or Pending("WaitingForIssuer", "The request was created again.")
        if not self._is_ours(found, submission):
            return Failed(f"Another {self._kind.kind} has the name of this one.")
        return await self._approve(found, submission) or self._answer_of(found)

    async def forget(self, submission: Submission) -> None:
        """Delete the request. One that cannot be deleted is left to the sweep."""
        self._outcomes.pop(submission.name, None)
        await self._requests.discard(submission.order[0], submission.name, order_uid=submission.order_uid)

    async def revoke(self, certificate: bytes) -> bool:  # noqa: ARG002 - the API has no revocations
        """Return False: CAs behind the Kubernetes API take no revocations."""
        return False

    async def close(self) -> None:
        """Nothing is open: the watch belongs to all CAs of this kind."""

    @abstractmethod
    def _object(self, submission: Submission) -> T:
        """The request."""

    @abstractmethod
    def _is_ours(self, request: T, submission: Submission) -> bool:
        """Whether the request asks for what the submission does."""

    @abstractmethod
    def _answer_of(self, request: T) -> Answer:
        """What the request says."""

    @abstractmethod
    def _approved(self, request: T, approval: RequestCondition) -> T | None:
        """The request with that condition; None if it is decided already."""

    def _objection(self, submission: Submission) -> Answer | None:  # noqa: ARG002 - for kinds with limits
        """Why the request is not made; None: nothing stands against it."""
        return None

    async def _create(self, submission: Submission) -> Answer | None:
        """Create the request; None: it exists."""
        if (objection := self._objection(submission)) is not None:
            return objection
        try:
            created = await self._requests.create(self._object(submission))
        except errors.AlreadyExists:
            return None  # `look` compares it
        except errors.ClusterError as error:
            return answer_to_error(error)
        return await self._approve(created, submission)

    async def _approve(self, request: T, submission: Submission) -> Answer | None:
        """Approve a request of ours, if this CA's are approved here; None: there is nothing to say about it."""
        message = f"Approved for ACMEOrder {'/'.join(submission.order)}."
        approval = RequestCondition(type=APPROVED, status="True", reason=APPROVER, message=message)
        approved = self._approved(request, approval) if self._approves else None
        if approved is None:
            return None
        try:
            changed = await self._cluster.replace_status(self._kind, approved, subresource=self._subresource)
        except errors.Conflict:  # the issuer or another replica was faster
            return Pending("WaitingForApproval", "The request is being approved.")
        except errors.Forbidden as error:
            return Pending("WaitingForApproval", f"This server may not approve the request: {error}")
        except errors.ClusterError as error:
            return Pending("WaitingForApproval", f"The request cannot be approved now: {error}")
        self._requests.take(changed)
        return None
