"""Looks at the issuers of external CAs: several at a time, namespace by namespace, each for a limited time.

A look may wait for a server that does not answer, so the workers that reconcile do not wait for it. They say which CAs
to look at, and get what was found in the next reconciliation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from kms.clock import Clock
from kms.cluster.errors import ClusterError, Unavailable
from kms.issuers.remote import authority_type
from kms.resources.authorities import CertificateAuthority
from kms.resources.meta import Key, key_of
from kms.resources.orders import AuthorityType
from kms_operator.observation import MINUTE, Look, Observation, Observed, observed
from kms_operator.plan import REREAD, SECRET_NOT_FOUND
from kms_operator.queue import WorkQueue

logger = logging.getLogger(__name__)

WORKERS: Final = 8
NO_ANSWER = "Unreachable"
FAILED = "ObservationFailed"


class Observer:
    """Looks at what it is asked to, and keeps what was found by the UID of the CA. For one event loop.

    `looks` has a function for each supported type. Looks at one CA lie `every` apart, and less while a Secret is
    missing: then only the API server is asked. A look is given up after `deadline` seconds. `on_observed` is called
    with (namespace, name) of the CA after each.
    """

    def __init__(
        self,
        looks: Mapping[AuthorityType, Look],
        *,
        clock: Clock,
        on_observed: Callable[[Key], None],
        every: timedelta = MINUTE,
        deadline: float = 60.0,
        workers: int = WORKERS,
        queue: WorkQueue[Key] | None = None,
    ) -> None:
        self.observations: dict[str, Observed] = {}
        self._looks = looks
        self._clock = clock
        self._on_observed = on_observed
        self._every = every
        self._deadline = deadline
        self._workers = workers
        self._wanted: dict[Key, CertificateAuthority] = {}
        self._queue = queue if queue is not None else WorkQueue(group=lambda key: key[0])

    def add(self, authority: CertificateAuthority) -> None:
        """Look at the issuer of this CA soon. A look at this version that is waiting or under way is not repeated."""
        key, known = key_of(authority), self._wanted.get(key_of(authority))
        self._wanted[key] = authority
        if known is None or _version(known) != _version(authority):
            self._queue.add(key, held=False)

    def forget(self, uid: str) -> None:
        """Drop what was observed of a CA that was deleted."""
        self.observations.pop(uid, None)
        for key in [key for key, each in self._wanted.items() if each.metadata.uid == uid]:
            del self._wanted[key]

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            async with self._queue.take() as key:
                await self._process(key)

    async def _process(self, key: Key) -> None:
        authority = self._wanted.get(key)
        if authority is None:
            self._queue.reset_backoff(key)
            return  # it was deleted
        uid, generation = _version(authority)
        before = self.observations.get(uid)
        same = before is not None and before.generation == generation
        try:
            found = await self._look(authority, before.latest if before is not None and same else None)
        except Unavailable as error:
            delay = self._queue.retry(key, after=error.retry_after)
            logger.warning("API server not available", extra=_fields(authority, error=str(error), retry=delay))
            return
        self._queue.reset_backoff(key)
        current = self._wanted.get(key)
        if current is None or current.metadata.uid != uid:
            return  # it was deleted meanwhile
        every = min(self._every, REREAD) if found.reason == SECRET_NOT_FOUND else self._every
        self.observations[uid] = observed(before, found, generation=generation, now=self._clock(), every=every)
        if _version(current) == (uid, generation):
            del self._wanted[key]
        self._on_observed(key)

    async def _look(self, authority: CertificateAuthority, last: Observation | None) -> Observation:
        """Look once. Raises Unavailable."""
        type_ = authority_type(authority)
        look = self._looks.get(type_) if type_ is not None else None
        if look is None:
            return Observation("False", FAILED, "the operator of this version cannot look at CAs of this type")
        try:
            async with asyncio.timeout(self._deadline):
                return await look(authority, last)
        except Unavailable:
            raise
        except TimeoutError:
            return Observation("False", NO_ANSWER, f"no answer within {self._deadline:g} seconds")
        except ClusterError as error:
            logger.error("look refused", extra=_fields(authority, error=str(error)))
            return Observation("False", FAILED, f"the API server refused what the operator asked: {error}")
        except Exception:
            # A bug in one look must not stop the others; the log has the traceback.
            logger.exception("look failed", extra=_fields(authority))
            return Observation("False", FAILED, "the operator could not look at the issuer; its log says why")


def _version(authority: CertificateAuthority) -> tuple[str, int]:
    return authority.metadata.uid, authority.metadata.generation


def _fields(authority: CertificateAuthority, *, error: str | None = None, retry: float | None = None) -> dict[str, str]:
    fields = {"authority": f"{authority.metadata.namespace}/{authority.metadata.name}"}
    if error is not None:
        fields["error"] = error
    if retry is not None:
        fields["retry_in_seconds"] = f"{retry:.1f}"
    return fields
