"""The validations of one order: which are under way, which outcomes are not stored yet, and when they have to be."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from acme_server.model import ChallengeId, Failed, Outcome
from acme_server.validation.attempt import Pace, Task
from kms.resources.orders import ACMEOrder, StoredProblem


class Batch:
    """Lives as long as something of it is under way or not stored. Times are seconds of the event loop's clock."""

    def __init__(self, order: ACMEOrder, pace: Pace, *, now: float) -> None:
        self.order = order
        self.running: dict[ChallengeId, Task] = {}
        self.outcomes: dict[ChallengeId, Outcome] = {}
        self._pace = pace
        self._last_answer = now
        self._first_outcome: float | None = None
        self._polled: float | None = None
        self._hurry = False
        self._changed = asyncio.Event()
        self._round = asyncio.Event()

    def answered(self, order: ACMEOrder, *, now: float) -> None:
        """The client has answered a challenge; `order` is what is known of it by now."""
        self.order = order
        self._last_answer = now
        self._changed.set()

    def finished(self, task: Task, outcome: Outcome, *, now: float) -> None:
        """A validation has ended. The failure of a quiet one is forgotten."""
        self.running.pop(task.id, None)
        if not (task.quiet and isinstance(outcome, Failed)):
            self.outcomes[task.id] = outcome
            self._first_outcome = self._first_outcome or now
        self._changed.set()

    def polled(self, *, now: float) -> None:
        """A client wants to know how things stand."""
        if self._polled is None:
            self._polled = now
        self._changed.set()

    def hurry(self) -> None:
        """Outcomes are to be stored as soon as nothing is under way."""
        self._hurry = True
        self._changed.set()

    def empty(self) -> bool:
        """Whether nothing is under way and nothing waits to be stored."""
        return not self.running and not self.outcomes

    def unfinished_orders(self) -> Mapping[ChallengeId, StoredProblem | None]:
        """What is under way and was asked for, with what has gone wrong so far."""
        return {id_: task.problem() for id_, task in self.running.items() if not task.quiet}

    def shown(self) -> Mapping[ChallengeId, StoredProblem | None]:
        """What a client is to see as processing: also what has ended, as long as it is not stored."""
        return {**self.unfinished_orders(), **dict.fromkeys(self.outcomes)}

    def stored(self, outcomes: Collection[ChallengeId], announced: Collection[ChallengeId], *, now: float) -> None:
        """These outcomes are stored, and that those others are under way."""
        for id_ in outcomes:
            self.outcomes.pop(id_, None)
        self._first_outcome = now if self.outcomes else None
        self._polled = None
        for id_, task in self.running.items():
            task.announced = task.announced or id_ in announced
        self._round.set()
        self._round = asyncio.Event()

    def close(self) -> None:
        """Nobody works on this batch any more."""
        self._round.set()

    async def wait_until_stored(self) -> None:
        """Wait until the outcomes are stored; a little longer than the client's patience, which makes them due."""
        try:
            async with asyncio.timeout(self._pace.patience + 1):
                await self._round.wait()
        except TimeoutError:
            return

    async def wait_until_due(self) -> None:
        """Wait until the outcomes have to be stored, or that something is under way, or until nothing is left."""
        loop = asyncio.get_running_loop()
        while not self.empty():
            due = self._due()
            if due is not None and loop.time() >= due:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _due(self) -> float | None:
        """When to store; None: not before something happens."""
        if self.running:
            return self._due_while_running()
        if self._complete() or self._hurry or self._polled is not None:
            return 0
        # Nothing is under way, but authorizations are unanswered: the client may be about to answer them.
        held = (self._first_outcome or 0) + self._pace.held
        return min(held, self._last_answer + self._pace.quiet)

    def _due_while_running(self) -> float | None:
        times: list[float] = []
        if self._first_outcome is not None:
            times.append(self._first_outcome + self._pace.held)
            if self._polled is not None:
                times.append(self._polled + self._pace.patience)
        times.extend(
            task.begun + self._pace.patience for task in self.running.values() if not task.announced and not task.quiet
        )
        return min(times, default=None)

    def _complete(self) -> bool:
        """Whether every authorization that was open has an outcome."""
        decided = {id_.position for id_ in self.outcomes}
        return all(
            each.state != "pending" or position in decided
            for position, each in enumerate(self.order.status.authorizations)
        )
