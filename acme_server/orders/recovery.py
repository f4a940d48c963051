"""Continues the work of servers that died: lost validations, and orders left in processing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta

from acme_server.model import ChallengeId
from acme_server.state.cache import Key
from acme_server.state.index import Index, View
from kms.clock import Clock
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, Challenge

PATIENCE = timedelta(seconds=30)
"""A validation takes ten seconds; one that is stored as processing for longer has lost its server."""


def never_gone(replica: str) -> bool:  # noqa: ARG001 - the signature of is_gone
    """The answer without knowledge of other replicas."""
    return False


class Recovery:
    """Finds lost validations.

    `replica` is the name of this replica, the same after a restart; `life` is random at each start. `is_sole_writer`
    returns whether this is the only replica, `is_gone` whether another one has certainly ended.
    """

    def __init__(
        self,
        *,
        replica: str,
        life: str,
        clock: Clock,
        is_sole_writer: Callable[[], bool],
        is_gone: Callable[[str], bool] = never_gone,
        remembered: int = 10_000,
    ) -> None:
        self._replica = replica
        self._life = life
        self._clock = clock
        self._started: datetime = clock()
        self._is_sole_writer = is_sole_writer
        self._is_gone = is_gone
        self._remembered = remembered
        self._tried: OrderedDict[Key, None] = OrderedDict()

    @property
    def attempt(self) -> str:
        """Identifies this process in stored challenges."""
        return f"{self._replica}/{self._life}"

    def is_lost(self, challenge: Challenge) -> bool:
        """Whether the challenge is stored as processing while no process validates it any more."""
        if challenge.state != "processing" or challenge.attempt == self.attempt:
            # The worker knows what this process validates now; a validation that it gave up is lost too.
            return challenge.state == "processing"
        replica = (challenge.attempt or "").rpartition("/")[0]
        if replica == self._replica or self._is_gone(replica):
            return True
        return challenge.started is None or self._clock() - challenge.started > PATIENCE

    def find_lost(self, order: ACMEOrder, running: Collection[ChallengeId]) -> tuple[tuple[ChallengeId, bool], ...]:
        """The challenges to validate again, each with whether to do so quietly.

        Quietly means that a failure is not stored: a client may have responded to a process that died before it wrote
        anything, or may not have responded at all.
        """
        candidates = [
            (ChallengeId(position, each.type), each)
            for position, authorization in enumerate(order.status.authorizations)
            if authorization.state == "pending"
            for each in authorization.challenges
        ]
        lost = tuple((id_, False) for id_, each in candidates if id_ not in running and self.is_lost(each))
        if lost or running or any(each.state == "processing" for _, each in candidates):
            return lost
        if not self._asked_elsewhere(order) or not self._first_time(key_of(order)):
            return ()
        return tuple((id_, True) for id_, _ in candidates)

    def _asked_elsewhere(self, order: ACMEOrder) -> bool:
        """Whether a client may have responded to a process that has died.

        That is an earlier run of this process, if the order is older; or another replica, if the order is older than
        the time after which replicas store responses.
        """
        created = order.metadata.creation_timestamp
        if created is None:
            return False
        return created <= self._started or (not self._is_sole_writer() and self._clock() - created > PATIENCE)

    def _first_time(self, key: Key) -> bool:
        if key in self._tried:
            return False
        self._tried[key] = None
        while len(self._tried) > self._remembered:
            self._tried.popitem(last=False)
        return True


class UnfinishedOrders(View[ACMEOrder]):
    """Orders in processing that no client asks about: their server may have died."""

    def __init__(self, index: Index[ACMEOrder], *, patience: float = 30.0, every: float = 10.0) -> None:
        """In seconds: `patience` is the time for other servers to finish an order, `every` the time between checks."""
        super().__init__(index)
        self._patience = patience
        self._every = every
        self._since: dict[Key, float] = {}

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Remember since when the order has been in processing."""
        if order.status.state == "processing":
            self._since.setdefault(key, asyncio.get_running_loop().time())
        else:
            self.remove(key)

    def remove(self, key: Key) -> None:
        """Forget the order."""
        self._since.pop(key, None)

    def obscure(self, key: Key) -> None:
        """Forget the order: what cannot be read cannot be finished."""
        self.remove(key)

    async def run(self, finish: Callable[[Key], Awaitable[None]]) -> None:
        """Call `finish` for each order that has been in processing for too long; never returns."""
        while True:
            await asyncio.sleep(self._every)
            now = asyncio.get_running_loop().time()
            for key in [key for key, since in self._since.items() if now - since > self._patience]:
                await finish(key)
