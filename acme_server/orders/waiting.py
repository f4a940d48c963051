"""The orders that wait for an external CA on this replica: one task for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from acme_server.problems import Unavailable
from kms.issuers.protocol import RemoteIssuer, Submission
from kms.resources.meta import Key
from kms.resources.orders import AuthorityType

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Waiter:
    """An order that this replica works at. `submission` is what it has asked `issuer` for and not yet removed.

    `settled` is set once the order has ended.
    """

    key: Key
    type: AuthorityType
    submission: Submission | None = None
    issuer: RemoteIssuer | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    busy: bool = False


Step = Callable[[Waiter], Awaitable[float | None]]
"""Does what can be done for the order now, and returns after how many seconds to look again; None: it has ended.

Raises Unavailable if the API server does not answer.
"""


class Waiting:
    """Runs a task for each order. `retry` is after how many seconds to repeat what the API server did not answer."""

    def __init__(self, step: Step, *, retry: float = 5.0) -> None:
        self._step = step
        self._retry = retry
        self._tasks: dict[Key, tuple[Waiter, asyncio.Task[None]]] = {}
        self._names: dict[str, Waiter] = {}
        self._draining = False

    def __contains__(self, key: Key) -> bool:
        return key in self._tasks

    def count(self, type_: AuthorityType) -> int:
        """The number of orders that wait for a CA of that type."""
        return sum(waiter.type == type_ for waiter, _ in self._tasks.values())

    def start(self, key: Key, type_: AuthorityType) -> None:
        """Work at the order, unless this is under way or the server is shutting down."""
        if key in self._tasks or self._draining:
            return
        waiter = Waiter(key, type_)
        self._tasks[key] = waiter, asyncio.create_task(self._run(waiter), name=f"issuance of {key[1]}")

    def note(self, waiter: Waiter, submission: Submission, issuer: RemoteIssuer) -> None:
        """Remember what the order asks for, so that `wake` finds it by the name of its request."""
        waiter.submission, waiter.issuer = submission, issuer
        self._names[submission.name] = waiter

    async def forget(self, waiter: Waiter) -> None:
        """Remove the request of the order, if there is one."""
        submission, issuer = waiter.submission, waiter.issuer
        waiter.submission = waiter.issuer = None
        if submission is not None and issuer is not None:
            self._names.pop(submission.name, None)
            await issuer.forget(submission)

    def wake(self, request: str) -> None:
        """Look at the order again whose request this is."""
        if (waiter := self._names.get(request)) is not None:
            waiter.changed.set()

    def wake_order(self, key: Key) -> None:
        """Look at the order again."""
        if (found := self._tasks.get(key)) is not None:
            found[0].changed.set()

    async def settle(self, key: Key, *, seconds: float) -> None:
        """Wait until the order has ended, but not longer than that."""
        found = self._tasks.get(key)
        if found is None:
            return
        waiter, task = found
        ended = asyncio.ensure_future(waiter.settled.wait())
        try:
            await asyncio.wait({ended, task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()

    async def drain(self, seconds: float) -> None:
        """Stop. Calls to CAs that are under way get that long to end; another replica goes on with the rest."""
        self._draining = True
        busy = {task for waiter, task in self._tasks.values() if waiter.busy}
        for _, task in self._tasks.values():
            if task not in busy:
                task.cancel()
        if busy:
            await asyncio.wait(busy, timeout=seconds)
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, waiter: Waiter) -> None:
        try:
            while True:
                waiter.changed.clear()
                pause = await self._look(waiter)
                if pause is None or self._draining:
                    return
                # Not wait_for: before Python 3.12 it may swallow a cancellation, and the task would never end.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waiter.changed.wait()
        finally:
            if waiter.submission is not None:
                self._names.pop(waiter.submission.name, None)
            self._tasks.pop(waiter.key, None)

    async def _look(self, waiter: Waiter) -> float | None:
        waiter.busy = True
        try:
            return await self._step(waiter)
        except Unavailable as error:
            logger.info("issuance is delayed", extra={"order": waiter.key[1], "error": str(error)})
            return self._retry
        except Exception:  # an error must not leave the order to itself
            logger.exception("issuance failed", extra={"order": waiter.key[1]})
            return self._retry
        finally:
            waiter.busy = False
