"""Tells receivers what has happened: by the replica that leads, at least once, in order, one event after the other.

What is still to be told follows from the orders and from how far each receiver has been told, so nothing is lost with a
process. A receiver that fails is tried again later and later; nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from acme_server.fair_slots import FairSlots
from acme_server.notifications.changes import Change, Changes
from acme_server.notifications.events import (
    MEDIA_TYPE,
    CloudEvent,
    of_ending_authority,
    of_ending_certificate,
    of_order,
    signature_headers,
)
from acme_server.notifications.expiring import End, ends_of_authority, ends_of_certificates
from acme_server.notifications.post import NotDelivered
from acme_server.notifications.progress import ProgressStore
from acme_server.notifications.receivers import Receiver
from acme_server.notifications.turns import in_turns
from acme_server.problems import Unavailable
from acme_server.state.certificates import CertificateRecord
from acme_server.state.store import Store
from kms.clock import Clock
from kms.cluster.errors import ClusterError
from kms.resources.notifications import Progress, progress_lease
from kms.resources.orders import ACMEOrder

logger = logging.getLogger(__name__)

Post = Callable[[Receiver, Sequence[tuple[str, str]], bytes], Coroutine[Any, Any, None]]
"""Posts headers and a body to a receiver. Raises NotDelivered."""

GIVE_UP = timedelta(days=3)
"""How long an event is tried to be delivered."""
KEPT = GIVE_UP + timedelta(hours=2)
"""How long changes are kept to be told; longer than any pause between two attempts, so that the leader counts what it
gives up."""
_MARGIN = timedelta(hours=1)
"""By how much clocks of replicas may differ, and a write may take."""
_REMEMBERED = 1_000
"""Events of a receiver that are not sent again because their order was written again."""
_TURN = 100
"""Receivers that are looked at before others get their turn."""


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds: how often receivers are told, ends looked for, and progress stored, and the pauses after failures.

    `slots` requests run at once, `slots_per_namespace` of one namespace; a turn of a receiver begins no request after
    `turn`. For `behind`, a new leader may know of less than the last one did: API servers send bookmarks about every
    minute. After that, etcd must have been restored.
    """

    every: float = 1.0
    look: float = 60.0
    save: float = 5.0
    idle: float = 600.0
    behind: float = 180.0
    shortest: float = 2.0
    longest: float = 600.0
    turn: float = 10.0
    slots: int = 16
    slots_per_namespace: int = 4


@dataclass
class _State:
    """What is known of a receiver while this replica leads."""

    next_at: float = 0.0
    failures: int = 0
    is_busy: bool = False
    position: int = 0
    behind_since: float | None = None
    ends: deque[End] = field(default_factory=deque)
    looked_at: datetime | None = None
    told: int = 0
    sent: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Delivery:
    """Sends events while this replica leads.

    `find_receivers` finds all, `records` are the certificates, and `position` says up to which resourceVersion the
    orders of a namespace are known (None: not yet).
    """

    def __init__(
        self,
        *,
        find_receivers: Callable[[], Iterable[Receiver | None]],
        orders: Store[ACMEOrder],
        changes: Changes,
        records: Callable[[], Collection[CertificateRecord]],
        position: Callable[[str], int | None],
        progress: ProgressStore,
        post: Post,
        clock: Clock,
        random: Callable[[], float],
        pace: Pace | None = None,
    ) -> None:
        self._find_receivers = find_receivers
        self._orders = orders
        self._changes = changes
        self._records = records
        self._position = position
        self._progress = progress
        self._post = post
        self._clock = clock
        self._random = random
        self._pace = pace or Pace()
        self._slots = FairSlots((self._pace.slots, self._pace.slots_per_namespace))
        self._receivers: dict[str, Receiver] = {}
        self._states: dict[str, _State] = {}

    async def run(self) -> None:
        """Tell receivers until cancelled."""
        self._states.clear()
        while True:
            try:
                await self._progress.load()
                break
            except ClusterError:
                await asyncio.sleep(self._pace.save)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            tasks.create_task(self._save())
            while True:
                await self._begin(tasks)
                await asyncio.sleep(self._pace.every)

    async def _begin(self, tasks: asyncio.TaskGroup) -> None:
        """Begin a turn of each receiver that is due and has something to be told."""
        receivers = {each.uid: each async for each in in_turns(self._find_receivers(), turn=_TURN) if each is not None}
        self._receivers = receivers
        counts = self._progress.counts()
        async for receiver in in_turns(receivers.values(), turn=_TURN):
            position, state = self._position(receiver.namespace), self._states.get(receiver.uid)
            if state is None:
                state = self._states[receiver.uid] = _State()
            if position is None or state.is_busy or asyncio.get_running_loop().time() < state.next_at:
                continue
            known = self._known(receiver, state, position, counts)
            if known is None:
                continue
            self._progress.known[receiver.uid] = known
            if state.ends or self._changes.first(receiver.owner, after=known.version) is not None:
                state.is_busy = True
                tasks.create_task(self._take_turn(receiver, state))
            elif known.version < state.told <= position or self._is_idle(known):
                self._advance(receiver)

    def _known(self, receiver: Receiver, state: _State, position: int, counts: Counter[str]) -> Progress | None:
        """How far the receiver has been told; None: it is not to be told anything now."""
        known, before = self._progress.known.get(receiver.uid), state.position
        state.position = position
        if known is None:
            lease = progress_lease(self._progress.service, receiver.uid)
            if counts[lease] >= self._progress.maximum:
                return None
            counts[lease] += 1
            return Progress(version=position, time=self._clock(), expiring=self._clock())
        if known.version <= position:
            state.behind_since = None
            return known
        now = asyncio.get_running_loop().time()
        if state.behind_since is None:
            state.behind_since = now
        if before <= position and now - state.behind_since < self._pace.behind:
            return None  # the last leader had seen more
        logger.warning("resourceVersions went back, as after a restore of etcd", extra={"receiver": receiver.owner})
        return replace(known, version=0)  # `time` remains: what happened before is not told again

    def _is_idle(self, known: Progress) -> bool:
        return (self._clock() - known.time).total_seconds() > self._pace.idle

    async def _take_turn(self, receiver: Receiver, state: _State) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._slots.hold((receiver.namespace,)):
                ends = loop.time() + self._pace.turn
                while loop.time() < ends and await self._tell_next(receiver, state):
                    pass
        except NotDelivered as error:
            state.failures += 1
            pause = min(self._pace.longest, self._pace.shortest * 2 ** min(state.failures - 1, 20))
            state.next_at = loop.time() + max(pause * (0.5 + self._random() / 2), error.retry_after)
            known = self._progress.known[receiver.uid]
            since = known.failing_since or self._clock()
            self._progress.known[receiver.uid] = replace(
                known, failing_since=since, error=str(error), reason=error.reason
            )
        except (ClusterError, Unavailable):
            state.next_at = loop.time() + self._pace.shortest  # what is to be told cannot be read
        finally:
            state.is_busy = False

    async def _tell_next(self, receiver: Receiver, state: _State) -> bool:
        """Tell one thing. Returns False if there is nothing to be told. Raises NotDelivered."""
        known, position = self._progress.known[receiver.uid], self._position(receiver.namespace)
        if position is None or position < known.version:
            return False
        change = self._changes.first(receiver.owner, after=known.version) if receiver.authority is None else None
        if change is not None:
            order = await self._read(change)
            if order is not None:
                for event in of_order(order, receiver.events, receiver.source, since=known.time - _MARGIN):
                    await self._send(receiver, state, event)
            self._changes.done(receiver.owner, change)
            state.told = change.version
            self._advance(receiver)
            return True
        if not state.ends:
            return False
        ending = await self._ending(receiver, state.ends[0])
        if ending is not None:
            await self._send(receiver, state, ending)
        state.ends.popleft()
        if not state.ends and state.looked_at is not None:
            self._set(receiver, expiring=state.looked_at)
        return True

    async def _read(self, change: Change) -> ACMEOrder | None:
        cached = self._orders.get_cached(*change.order)
        if cached is not None and int(cached.metadata.resource_version) >= change.version:
            return cached
        return await self._orders.read_live(*change.order)

    async def _ending(self, receiver: Receiver, end: End) -> CloudEvent | None:
        if end.order is not None:
            order = await self._orders.get(*end.order)
            return of_ending_certificate(order, end.threshold, receiver.source) if order is not None else None
        authority = receiver.authority
        return of_ending_authority(authority, end.due + end.threshold, end.threshold) if authority is not None else None

    async def _send(self, receiver: Receiver, state: _State, event: CloudEvent) -> None:
        if event.id in state.sent:
            return
        now, known = self._clock(), self._progress.known[receiver.uid]
        is_old = now - event.time >= GIVE_UP
        if is_old and state.failures:
            self._give_up(receiver, event, known.error)  # it would not take this one either
        else:
            body = event.body
            headers = (("Content-Type", MEDIA_TYPE), *signature_headers(event.id, body, receiver.key, now=now))
            try:
                await self._post(receiver, headers, body)
            except NotDelivered as error:
                if not error.final and not is_old:
                    raise
                state.failures += not error.final
                self._give_up(receiver, event, str(error))
            else:
                state.failures = 0
                self._set(receiver, delivered=now, failing_since=None, error="", reason="")
        state.sent[event.id] = None
        if len(state.sent) > _REMEMBERED:
            state.sent.popitem(last=False)

    def _give_up(self, receiver: Receiver, event: CloudEvent, error: str) -> None:
        logger.warning("notification given up", extra={"receiver": receiver.owner, "event": event.id})
        self._set(receiver, dropped=self._progress.known[receiver.uid].dropped + 1, error=error)

    def _advance(self, receiver: Receiver) -> None:
        """Note that everything has been told that is older than what is still to be told.

        Own writes are known before the watch reports them, and earlier ones of other replicas: so no further than it.
        """
        known, position = self._progress.known[receiver.uid], self._position(receiver.namespace)
        following = self._changes.first(receiver.owner, after=known.version)
        if position is None:
            return
        version = position if following is None else min(position, following.version - 1)
        time = self._clock() if following is None else known.time
        self._set(receiver, version=max(known.version, version), time=time)

    def _set(self, receiver: Receiver, **fields: Any) -> None:
        self._progress.known[receiver.uid] = replace(self._progress.known[receiver.uid], **fields)

    async def _look(self) -> None:
        """Look for what ends, again and again."""
        while True:
            await asyncio.sleep(self._pace.every)
            await self.look()
            await asyncio.sleep(self._pace.look)

    async def look(self) -> None:
        """Look once for what ends, for receivers that have been told of what ended before."""
        now, profiles = self._clock(), {}
        async for receiver in in_turns(self._receivers.values(), turn=_TURN):
            known, state = self._progress.known.get(receiver.uid), self._states.get(receiver.uid)
            if known is None or state is None or state.ends or state.is_busy:
                continue
            if receiver.authority is not None:
                state.ends, state.looked_at = deque(ends_of_authority(receiver, after=known.expiring, now=now)), now
            elif "Expiring" in receiver.events and receiver.thresholds:
                profiles[receiver.owner] = receiver, known.expiring
        found = await ends_of_certificates(self._records(), profiles, now=now)
        async for owner, (receiver, _) in in_turns(profiles.items(), turn=_TURN):
            known, state = self._progress.known.get(receiver.uid), self._states.get(receiver.uid)
            if known is None or state is None:
                continue  # it is gone
            state.ends, state.looked_at = found.get(owner, deque()), now
            if not state.ends and (now - known.expiring).total_seconds() > self._pace.idle:
                self._set(receiver, expiring=now)

    async def _save(self) -> None:
        """Store the progress, again and again, and forget receivers that are gone and have had their turn."""
        while True:
            await asyncio.sleep(self._pace.save)
            for uid in [uid for uid, each in self._states.items() if uid not in self._receivers and not each.is_busy]:
                del self._states[uid]
            try:
                await self._progress.save(uids=self._states)
            except ClusterError as error:
                logger.warning("progress of notifications cannot be stored", extra={"error": str(error)})
