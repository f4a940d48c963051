"""Validates challenges in the background, and stores the outcomes of an order together.

A client responds to its challenges one after the other, so the outcomes of an order are held until every authorization
has one, and stored in a single update. They are stored earlier when a client asks for the order or an authorization,
when no further response comes for a while, or when the first outcome has been held long enough. A validation that takes
longer than a client's poll is stored as processing, so that another process can resume it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType

from acme_server.metrics import Metrics
from acme_server.model import ChallengeId, Outcome
from acme_server.problems import Refused, Unavailable
from acme_server.state.cache import Key
from acme_server.validation.attempt import Attempts, CheckCAA, Validation, ValidationTiming, Validator, account_path
from acme_server.validation.batch import Batch
from acme_server.validation.shares import Limits, QueueShares
from kms.clock import Clock
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, ChallengeType, StoredProblem

IN_FLIGHT = Limits(total=100, namespace=75, profile=75, tenant=50, account=25)
"""Attempts at a time. The shares leave some to others even if all hosts of a namespace or tenant are slow."""
QUEUED = Limits(total=5_000, namespace=2_500, profile=2_500, tenant=1_500, account=1_000)

logger = logging.getLogger(__name__)

Problems = Mapping[ChallengeId, StoredProblem | None]
"""Running validations, each with its failures so far."""

StoreResults = Callable[[ACMEOrder, Mapping[ChallengeId, Outcome], Problems], Awaitable[ACMEOrder]]
"""Stores outcomes, and that other challenges are in processing. Raises Unavailable, to be called again later, and
Refused if the order is gone."""


class Worker:
    """The validations of this process.

    `in_flight` limits concurrent attempts, `queued` validations, waiting ones included; both in all, by namespace, by
    profile, by tenant and by account. Ten orders with as many names as an order can have are what an account may
    queue. Of
    `remembered` orders it is known that results were discarded.
    """

    def __init__(
        self,
        *,
        validators: Mapping[ChallengeType, Validator],
        check_caa: CheckCAA,
        store_results: StoreResults,
        clock: Clock,
        metrics: Metrics,
        timing: ValidationTiming | None = None,
        in_flight: Limits = IN_FLIGHT,
        queued: Limits = QUEUED,
        remembered: int = 10_000,
    ) -> None:
        self._store_results = store_results
        self._timing = timing or ValidationTiming()
        self._validated = frozenset(validators)
        self._attempts = Attempts(
            validators=validators,
            check_caa=check_caa,
            clock=clock,
            metrics=metrics,
            timing=self._timing,
            in_flight=in_flight,
        )
        self._queued = QueueShares(queued)
        self._batches: dict[Key, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._remembered = remembered
        self._discarded: OrderedDict[Key, tuple[ChallengeId, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queued)

    def is_idle(self) -> bool:
        """Whether nothing is running, waiting or to be stored."""
        return not self._batches and not self._tasks and not len(self._queued)

    def validates(self, type_: ChallengeType) -> bool:
        """Whether challenges of that type can be validated; others are never offered."""
        return type_ in self._validated

    def start(self, order: ACMEOrder, id_: ChallengeId, thumbprint: str, *, quiet: bool = False) -> None:
        """Start to validate the challenge with the account key of that thumbprint.

        A running validation is not started again; if it waits for its next attempt, that is made at once (RFC 8555,
        8.2). The failure of a `quiet` validation is not stored, since the client may not have asked for it.
        Raises Unavailable if too many are running, or the server is shutting down.
        """
        account = account_path(order)
        if self._draining or not self._queued.has_room(account):
            raise Unavailable("Too many challenges are being validated.", 2)
        now = asyncio.get_running_loop().time()
        key = key_of(order)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batch(order, self._timing, now=now)
            self._spawn(self._store_when_due(key, batch))
        batch.note_response(order, now=now)
        if id_ in batch.outcomes:
            return
        if (running := batch.running.get(id_)) is not None:
            running.retry_now(quiet=quiet)
            return
        validation = Validation.of(order, id_, thumbprint, quiet=quiet, now=now)
        batch.running[id_] = validation
        self._queued.add(account)
        self._spawn(self._validate(batch, validation))

    def running_challenges(self, order: ACMEOrder) -> Problems:
        """The order's challenges that are being validated, or whose outcome is not stored yet."""
        batch = self._batches.get(key_of(order))
        return MappingProxyType({}) if batch is None else batch.processing()

    def take_discarded(self, order: ACMEOrder) -> tuple[ChallengeId, ...]:
        """The order's challenges that were validated in vain, as the API server took no results; told once."""
        return self._discarded.pop(key_of(order), ())

    async def settle(self, order: ACMEOrder) -> bool:
        """Wait for the order's validations as long as a poll may take, until their outcomes are stored.

        Returns whether there were any: then the order may have changed.
        """
        batch = self._batches.get(key_of(order))
        if batch is None:
            return False
        batch.note_poll(now=asyncio.get_running_loop().time())
        await batch.wait_until_stored()
        return True

    async def drain(self, seconds: float) -> None:
        """Start nothing any more, and finish what is running, within that time.

        Another process resumes the rest: it is stored as processing, or its client asks again.
        """
        self._draining = True
        for batch in self._batches.values():
            batch.drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _validate(self, batch: Batch, validation: Validation) -> None:
        try:
            outcome = await self._attempts.run(validation)
        finally:
            self._queued.remove(validation.account)
        batch.add_outcome(validation, outcome, now=asyncio.get_running_loop().time())

    async def _store_when_due(self, key: Key, batch: Batch) -> None:
        """Store the batch whenever that is due, until it is empty."""
        try:
            while not batch.is_empty():
                await batch.wait_until_due()
                if not batch.is_empty():
                    await self._store(batch)
        finally:
            batch.release()
            self._batches.pop(key, None)

    async def _store(self, batch: Batch) -> None:
        """Store outcomes and what is in processing, again and again while the API server is unavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timing.store_for
        outcomes, unfinished = dict(batch.outcomes), batch.unfinished()
        delays = iter(self._timing.store_delays)
        delay = 0.0
        while True:
            try:
                batch.order = await self._store_results(batch.order, outcomes, unfinished)
            except Unavailable as error:
                if loop.time() > deadline:
                    logger.error(
                        "API server is unavailable; discarding validation results",
                        extra={"order": batch.order.metadata.name, "error": str(error)},
                    )
                    self._discarded[key_of(batch.order)] = tuple(outcomes)
                    while len(self._discarded) > self._remembered:
                        self._discarded.popitem(last=False)
                    break
                delay = next(delays, delay)
                await asyncio.sleep(delay)
            except Refused as error:
                logger.info(
                    "order is gone; discarding validation results",
                    extra={"order": batch.order.metadata.name, "error": str(error)},
                )
                break
            except Exception:  # else the batch would never end, and clients would wait for it
                logger.exception(
                    "unexpected error; discarding validation results", extra={"order": batch.order.metadata.name}
                )
                break
            else:
                break
        batch.mark_stored(outcomes, unfinished, now=loop.time())
