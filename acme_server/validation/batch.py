"""The validations of one order: which are running, which outcomes are not stored yet, and when they must be."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from acme_server.model import ChallengeId, Failed, Outcome
from acme_server.validation.attempt import Validation, ValidationTiming
from kms.resources.orders import ACMEOrder, StoredProblem


class Batch:
    """Exists while one of its validations is running or not stored. Times are seconds of the event loop's clock."""

    def __init__(self, order: ACMEOrder, timing: ValidationTiming, *, now: float) -> None:
        self.order = order
        self.running: dict[ChallengeId, Validation] = {}
        self.outcomes: dict[ChallengeId, Outcome] = {}
        self._timing = timing
        self._last_response = now
        self._first_outcome: float | None = None
        self._polled: float | None = None
        self._draining = False
        self._changed = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()

    def note_response(self, order: ACMEOrder, *, now: float) -> None:
        """The client has responded to a challenge of the order, whose latest version this is."""
        self.order = order
        self._last_response = now
        self._changed.set()

    def add_outcome(self, validation: Validation, outcome: Outcome, *, now: float) -> None:
        """A validation has ended. The failure of a quiet one is dropped."""
        self.running.pop(validation.id, None)
        if not (validation.quiet and isinstance(outcome, Failed)):
            self.outcomes[validation.id] = outcome
            self._first_outcome = self._first_outcome or now
        self._changed.set()

    def note_poll(self, *, now: float) -> None:
        """A client has asked for the state of the order."""
        if self._polled is None:
            self._polled = now
            if self.outcomes:  # else nothing is due earlier than it was
                self._changed.set()

    def drain(self) -> None:
        """Store outcomes as soon as nothing is running."""
        self._draining = True
        self._changed.set()

    def is_empty(self) -> bool:
        """Whether nothing is running and every outcome is stored."""
        return not self.running and not self.outcomes

    def unfinished(self) -> Mapping[ChallengeId, StoredProblem | None]:
        """The running validations that the client asked for, each with its failures so far."""
        return {id_: each.problem() for id_, each in self.running.items() if not each.quiet}

    def processing(self) -> Mapping[ChallengeId, StoredProblem | None]:
        """The challenges that clients see as processing: also those that have ended, until their outcome is stored."""
        return {**self.unfinished(), **dict.fromkeys(self.outcomes)}

    def mark_stored(self, outcomes: Collection[ChallengeId], announced: Collection[ChallengeId], *, now: float) -> None:
        """These outcomes are stored, and that `announced` are in processing."""
        for id_ in outcomes:
            self.outcomes.pop(id_, None)
        self._first_outcome = now if self.outcomes else None
        self._polled = None
        for id_, each in self.running.items():
            each.announced = each.announced or id_ in announced
        self.release()

    def release(self) -> None:
        """Wake up the requests that wait until outcomes are stored."""
        for each in self._waiting:
            _wake(each)

    async def wait_until_stored(self) -> None:
        """Wait until outcomes are stored, a little longer than a poll, which makes them due."""
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        self._waiting.add(stored)
        timer = loop.call_later(self._timing.poll + 1, _wake, stored)
        try:
            await stored
        finally:
            timer.cancel()
            self._waiting.discard(stored)

    async def wait_until_due(self) -> None:
        """Wait until something must be stored, or the batch is empty."""
        loop = asyncio.get_running_loop()
        while not self.is_empty():
            due = self._due()
            if due is not None and loop.time() >= due:
                return
            self._changed.clear()
            timer = None if due is None else loop.call_at(due, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _due(self) -> float | None:
        """When to store; None: not before something changes."""
        if self.running:
            return self._due_while_running()
        if self._is_complete() or self._draining or self._polled is not None:
            return 0
        # Nothing is running, but some authorizations have no outcome: the client may be about to respond to them.
        held_until = (self._first_outcome or 0) + self._timing.hold
        return min(held_until, self._last_response + self._timing.idle)

    def _due_while_running(self) -> float | None:
        times: list[float] = []
        if self._first_outcome is not None:
            times.append(self._first_outcome + self._timing.hold)
            if self._polled is not None:
                times.append(self._polled + self._timing.poll)
        times.extend(
            each.started + self._timing.poll for each in self.running.values() if not each.announced and not each.quiet
        )
        return min(times, default=None)

    def _is_complete(self) -> bool:
        """Whether every authorization that was pending has an outcome."""
        decided = {id_.position for id_ in self.outcomes}
        return all(
            each.state != "pending" or position in decided
            for position, each in enumerate(self.order.status.authorizations)
        )


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
