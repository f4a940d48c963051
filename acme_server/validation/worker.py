"""Validates challenges in the background and has the outcomes written down, those of one order together.

A client answers its challenges one after the other, so the outcomes of an order are held until every authorization has
one, and written in a single update. They are not held when a client asks for the order or an authorization, when no
further challenge is answered for a while, or when the first outcome has waited long enough.
What takes longer than a client's patience is written down as processing, so that it outlives this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Protocol

from acme_server.metrics import Metrics
from acme_server.model import ChallengeId, Outcome
from acme_server.problems import Refused, Unavailable
from acme_server.state.cache import Key
from acme_server.validation.attempt import Attempts, Pace, Permit, Task, Validate
from acme_server.validation.batch import Batch
from kms.clock import Clock
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, ChallengeType, StoredProblem

logger = logging.getLogger(__name__)

IN_FLIGHT = 100
"""Validations that use the network at the same time."""
QUEUED = 5_000
"""Validations that may be under way altogether, those that wait for their turn included."""
QUEUED_BY_ACCOUNT = 1_000
"""The same for one account: ten orders with as many names as an order can have."""
_BACKOFF = (0.5, 1.0, 2.0, 5.0)
_GIVE_UP = 300.0
"""Seconds for which outcomes are kept when the API server does not take them."""

Errors = Mapping[ChallengeId, StoredProblem | None]
"""Validations under way and what has gone wrong in them so far."""


class Recorder(Protocol):
    """Writes down how the validations of an order stand."""

    async def record(self, order: ACMEOrder, outcomes: Mapping[ChallengeId, Outcome], running: Errors) -> ACMEOrder:
        """Store the outcomes, and that the others are in processing. Raises Unavailable to be asked again later."""
        ...


class Worker:
    """The validations under way in this process."""

    def __init__(
        self,
        *,
        validators: Mapping[ChallengeType, Validate],
        permit: Permit,
        validation_results: Recorder,
        clock: Clock,
        metrics: Metrics,
        pace: Pace | None = None,
        in_flight: int = IN_FLIGHT,
        queued: int = QUEUED,
        queued_by_account: int = QUEUED_BY_ACCOUNT,
    ) -> None:
        self._validation_results = validation_results
        self._pace = pace or Pace()
        self._attempts = Attempts(
            validators=validators,
            permit=permit,
            clock=clock,
            metrics=metrics,
            pace=self._pace,
            in_flight=in_flight,
        )
        self._queued = queued
        self._queued_by_account = queued_by_account
        self._by_account: Counter[Key] = Counter()
        self._batches: dict[Key, Batch] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self._draining = False

    def __len__(self) -> int:
        return self._by_account.total()

    def validates(self, type_: ChallengeType) -> bool:
        """Whether challenges of that type can be validated at all: others are never offered."""
        return self._attempts.can(type_)

    def start(self, order: ACMEOrder, id_: ChallengeId, thumbprint: str, *, quiet: bool = False) -> None:
        """Begin to validate the challenge with the account key of that thumbprint, as it is now.

        A challenge that is being validated is not begun again; if it waits for its next attempt, that is made at once
        (RFC 8555, 8.2). The failure of a `quiet` validation is not recorded: nobody knows whether it was asked for.
        Raises Unavailable where too much is under way, or the server is about to end.
        """
        account = order.metadata.namespace, order.spec.account_ref.name
        if (
            self._draining
            or self._by_account.total() >= self._queued
            or self._by_account[account] >= self._queued_by_account
        ):
            raise Unavailable("Too many challenges are being validated.", 2)
        now = asyncio.get_running_loop().time()
        key = key_of(order)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batch(order, self._pace, now=now)
            self._spawn(self._keep(key, batch))
        batch.answered(order, now=now)
        if id_ in batch.outcomes:
            return
        if (running := batch.running.get(id_)) is not None:
            running.hurry(quiet=quiet)
            return
        task = Task.of(order, id_, thumbprint, quiet=quiet, now=now)
        batch.running[id_] = task
        self._by_account[account] += 1
        self._spawn(self._validate(batch, task))

    def running(self, order: ACMEOrder) -> Errors:
        """The order's challenges that are being validated or whose outcome is not stored yet."""
        batch = self._batches.get(key_of(order))
        return MappingProxyType({}) if batch is None else batch.shown()

    async def settle(self, order: ACMEOrder) -> None:
        """Wait for the order's validations while a client's patience lasts, and have the outcomes stored."""
        batch = self._batches.get(key_of(order))
        if batch is not None:
            batch.polled(now=asyncio.get_running_loop().time())
            await batch.wait_until_stored()

    async def drain(self, seconds: float) -> None:
        """Begin nothing any more, and finish what was begun, for as long as that takes at most.

        What is not finished then goes on in another process: it is stored as processing, or its client asks again.
        """
        self._draining = True
        for batch in self._batches.values():
            batch.hurry()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=seconds)
        for task in tuple(self._keepers):
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)

    async def _validate(self, batch: Batch, task: Task) -> None:
        try:
            outcome = await self._attempts.outcome(task)
        finally:
            self._by_account[task.account] -= 1
            if not self._by_account[task.account]:
                del self._by_account[task.account]
        batch.finished(task, outcome, now=asyncio.get_running_loop().time())

    async def _keep(self, key: Key, batch: Batch) -> None:
        """Write the batch down whenever that is due, until nothing is left of it."""
        try:
            while not batch.empty():
                await batch.wait_until_due()
                if not batch.empty():
                    await self._stored(batch)
        finally:
            batch.close()
            self._batches.pop(key, None)

    async def _stored(self, batch: Batch) -> None:
        """Have the outcomes and the rest stored, however long the API server is away within reason."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _GIVE_UP
        outcomes, unfinished_orders = dict(batch.outcomes), batch.unfinished_orders()
        for failures in range(1_000_000):
            try:
                batch.order = await self._validation_results.record(batch.order, outcomes, unfinished_orders)
            except Unavailable as error:
                if loop.time() > deadline:
                    logger.error("outcomes are lost", extra={"order": batch.order.metadata.name, "error": str(error)})
                    break
                await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            except Refused as error:
                logger.info("outcomes are not wanted", extra={"order": batch.order.metadata.name, "error": str(error)})
                break
            except Exception:  # else the batch would stay for ever, and its clients would wait for it
                logger.exception("outcomes cannot be stored", extra={"order": batch.order.metadata.name})
                break
            else:
                break
        batch.stored(outcomes, unfinished_orders, now=loop.time())
