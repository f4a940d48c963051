"""Certificate requests that are objects of the Kubernetes API: those that this installation has made.

They are watched where there are CAs that are asked in this way, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from typing import Final, Generic, TypeVar

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.issuers.protocol import Answer, Pending, Refused, Submission
from kms.resources.kinds import Kind
from kms.resources.meta import GROUP, Key, ObjectMeta, Resource
from kms.resources.secret_names import MANAGED_BY, MANAGER

T = TypeVar("T", bound=Resource)

logger = logging.getLogger(__name__)

ORDER_UID: Final = f"{GROUP}/order-uid"
"""Label of a request: the UID of its ACMEOrder."""
ORDER: Final = f"{GROUP}/order"
"""Annotation of a request: namespace and name of its ACMEOrder."""
APPROVED: Final = "Approved"
"""The condition of a request that may be answered."""
APPROVER: Final = "kms-acme"
"""The reason of an approval that this server gives itself."""
_EVERYWHERE: Final = ""
_DENIED_CONTENT: Final = 'admission webhook "webhook.cert-manager.io" denied the request: spec.'
"""How the API server begins what cert-manager's webhook says about a request."""


def labels_of(submission: Submission) -> dict[str, str]:
    """The labels of the request."""
    return {MANAGED_BY: MANAGER, ORDER_UID: submission.order_uid}


def annotations_of(submission: Submission) -> dict[str, str]:
    """The annotations of the request."""
    return {ORDER: "/".join(submission.order)}


def order_of(metadata: ObjectMeta) -> Key | None:
    """The ACMEOrder of the request (namespace, name); None for a request that says none."""
    namespace, _, name = metadata.annotations.get(ORDER, "").partition("/")
    return (namespace, name) if namespace and name else None


class RequestObjects(Generic[T]):
    """The requests of one kind. `on_change` is called with the name of a request that has changed or is gone.

    A watch that the API server refuses, or whose kind it does not serve, is tried again after `refused` seconds.
    """

    def __init__(
        self, cluster: Cluster, kind: Kind[T], *, on_change: Callable[[str], None], refused: float = 60.0
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._on_change = on_change
        self._refused = refused
        self._watches: dict[str, tuple[Informer[T], asyncio.Task[None]]] = {}

    def watch(self, namespaces: Collection[str]) -> None:
        """Watch in these namespaces, and in no others. Requests without a namespace are watched together."""
        wanted = set(namespaces) if self._kind.namespaced else ({_EVERYWHERE} if namespaces else set())
        for namespace in self._watches.keys() - wanted:
            self._watches.pop(namespace)[1].cancel()
        for namespace in wanted - self._watches.keys():
            informer = Informer(
                self._cluster,
                self._kind,
                namespaces=(namespace,) if namespace else (),
                labels=f"{MANAGED_BY}={MANAGER}",
                on_change=lambda request, _: self._on_change(request.metadata.name),
                refused=self._refused,
            )
            task = asyncio.create_task(informer.run(), name=f"watch of {self._kind.plural}")
            task.add_done_callback(_log_error)
            self._watches[namespace] = informer, task

    async def close(self) -> None:
        """End all watches."""
        tasks = [task for _, task in self._watches.values()]
        self.watch(())
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def watched(self) -> tuple[str, ...]:
        """The namespaces that are watched; "" is all of them."""
        return tuple(sorted(self._watches))

    def values(self) -> Iterator[T]:
        """The requests that are known. The iterator must not be kept across an await."""
        for informer, _ in self._watches.values():
            yield from informer.values()

    async def find(self, namespace: str, name: str) -> T | None:
        """The request as it was last received. None: the API server says that there is none. Raises ClusterError.

        The namespace is that of the order; where requests have none, it does not matter.
        """
        namespace = namespace if self._kind.namespaced else _EVERYWHERE
        informer = self._informer(namespace)
        if informer is not None and informer.is_current():
            found = informer.get(namespace, name)
            if found is not None:
                return found
        try:
            found = await self._cluster.get(self._kind, namespace, name)
        except errors.NotFound:
            return None
        self.take(found)
        return found

    async def create(self, request: T) -> T:
        """Create the request. Raises ClusterError."""
        created = await self._cluster.create(self._kind, request)
        self.take(created)
        return created

    async def discard(self, namespace: str, name: str, *, order_uid: str) -> None:
        """Delete the request of this order, if there is one. One that cannot be deleted now is left to the sweep.

        Another one of that name stays: it is somebody else's, whatever the status of the order says.
        """
        try:
            found = await self.find(namespace, name)
            if found is not None and _is_of(found.metadata, order_uid):
                await self.delete(found.metadata)
        except errors.ClusterError as error:
            logger.warning("request cannot be deleted", extra={"request": name, "error": str(error)})

    async def delete(self, metadata: ObjectMeta) -> None:
        """Delete exactly this request. One that is gone is no error. Raises ClusterError."""
        try:
            await self._cluster.delete(self._kind, metadata.namespace, metadata.name, uid=metadata.uid)
        except (errors.NotFound, errors.Conflict):
            return

    def _informer(self, namespace: str) -> Informer[T] | None:
        found = self._watches.get(namespace if self._kind.namespaced else _EVERYWHERE)
        return found and found[0]

    def take(self, request: T) -> None:
        """Remember what the API server has just returned to a write."""
        informer = self._informer(request.metadata.namespace)
        if informer is not None:
            informer.put(request)


def answer_to_error(error: errors.ClusterError) -> Answer:
    """What it means that a request could not be created or read.

    The API server refuses requests for what is in them with 400, 413 or 422, and cert-manager's webhook with 403, as
    webhooks deny everything. Everything else passes by itself or is for a person to change: the order waits.
    """
    text = str(error)
    match error:
        case errors.Invalid():
            return Refused(text)
        case errors.Forbidden() if text.startswith(_DENIED_CONTENT):
            return Refused(text)
        case errors.Forbidden():
            return Pending("Forbidden", text)
        case errors.Unavailable() | errors.Undecodable() | errors.NotFound() | errors.Conflict() | errors.Gone():
            return Pending("IssuerNotReady", text)
        case errors.Misconfigured() | errors.AlreadyExists():
            return Pending("IssuerNotReady", text)
        case _:
            return Refused(text)


def _is_of(metadata: ObjectMeta, order_uid: str) -> bool:
    return (metadata.labels.get(MANAGED_BY), metadata.labels.get(ORDER_UID)) == (MANAGER, order_uid)


def _log_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("watch failed", exc_info=error)
