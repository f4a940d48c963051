"""Refusals of requests, which are stored nowhere: the replica that refused tells of them, once, from memory.

Clients decide how many there are, so a profile has a few in each round; the event says how many were left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from acme_server.audit.record import Decision, detail
from acme_server.fair_slots import FairSlots
from acme_server.notifications.delivery import Post
from acme_server.notifications.events import MEDIA_TYPE, PREFIX, CloudEvent, signature_headers
from acme_server.notifications.post import NotDelivered
from acme_server.notifications.receivers import Receiver
from acme_server.problems import Refused
from kms.clock import Clock, Entropy
from kms.resources.meta import Key

logger = logging.getLogger(__name__)

MAXIMUM = 10
"""Refusals of one profile that are told in one round."""
MAXIMUM_PROFILES = 200
"""Profiles whose refusals are told in one round."""


@dataclass
class _Waiting:
    events: list[CloudEvent] = field(default_factory=list)
    omitted: int = 0


class RefusedRequests:
    """Tells of refusals every `every` seconds. `find_receiver` finds that of a profile."""

    def __init__(
        self,
        *,
        find_receiver: Callable[[Key], Receiver | None],
        post: Post,
        clock: Clock,
        entropy: Entropy,
        every: float = 10.0,
    ) -> None:
        self._find_receiver = find_receiver
        self._post = post
        self._clock = clock
        self._entropy = entropy
        self._every = every
        self._waiting: dict[Key, _Waiting] = {}
        self._slots = FairSlots((8, 2))

    def on_refused(self, decision: Decision, refused: Refused, *, profile: Key, credential: Key | None) -> None:
        """A request of a client of that profile was refused."""
        known = self._waiting.get(profile)
        if known is None:
            receiver = self._find_receiver(profile)
            if receiver is None or "Refused" not in receiver.events or len(self._waiting) >= MAXIMUM_PROFILES:
                return
            known = self._waiting[profile] = _Waiting()
        if len(known.events) >= MAXIMUM:
            known.omitted += 1
            return
        namespace, name = profile
        data: dict[str, Any] = {
            "namespace": namespace,
            "profile": name,
            "request": decision,
            "error": refused.type.value,
            "detail": detail(refused.detail),
            "credential": "/".join(credential) if credential is not None else None,
        }
        known.events.append(
            CloudEvent(
                id=self._entropy(16).hex(),
                type=PREFIX + "request.refused",
                source=f"/certificateprofiles/{namespace}/{name}",
                subject=name,
                time=self._clock(),
                data=data,
            )
        )

    async def run(self) -> None:
        """Tell of refusals until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.send()

    async def send(self) -> None:
        """Tell of what was refused since the last round. What is not delivered is dropped."""
        waiting, self._waiting = self._waiting, {}
        turns: list[Coroutine[Any, Any, None]] = []
        for profile, each in waiting.items():
            receiver = self._find_receiver(profile)
            if receiver is not None:
                each.events[-1].data["omitted"] = each.omitted
                turns.append(self._send_to(receiver, each.events))
        await asyncio.gather(*turns)

    async def _send_to(self, receiver: Receiver, events: list[CloudEvent]) -> None:
        async with self._slots.hold((receiver.namespace,)):
            for event in events:
                body = event.body
                signed = signature_headers(event.id, body, receiver.key, now=self._clock())
                try:
                    await self._post(receiver, (("Content-Type", MEDIA_TYPE), *signed), body)
                except NotDelivered as error:
                    logger.info("refusals not told", extra={"receiver": receiver.owner, "error": str(error)})
                    return
