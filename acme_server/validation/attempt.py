"""One validation: a few attempts within a few seconds, and what they come to (RFC 8555, 8.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

from acme_server.metrics import Metrics
from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.problems import ProblemType
from acme_server.state.cache import Key
from kms.clock import Clock
from kms.resources.orders import ACMEOrder, ChallengeType, Identifier, StoredProblem, StoredSubProblem

logger = logging.getLogger(__name__)

_SHARES = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast things go, in seconds.

    `quiet`: without a further answered challenge for that long, outcomes are stored. `held`: no outcome waits longer.
    `patience`: how long a client's poll waits, and how long a validation may take until it is stored as processing.
    `retries`: the pauses between attempts; none begins later than `within` after the first.
    """

    quiet: float = 0.5
    held: float = 2.0
    patience: float = 2.0
    retries: tuple[float, ...] = (0.5, 1.5, 3.0, 4.0)
    within: float = 10.0


class ValidationFailed(Exception):
    """An attempt failed. `temporary`: another one may succeed, because nothing has contradicted the client yet."""

    def __init__(self, type_: ProblemType, detail: str, *, temporary: bool = False) -> None:
        super().__init__(detail)
        self.problem = StoredProblem(type=type_.value, detail=detail)
        self.temporary = temporary


class Permit(Protocol):
    """Says whether what was proven may be used: whether the CAA records of the identifier allow it."""

    async def __call__(self, order: ACMEOrder, id_: ChallengeId, /) -> datetime | None:
        """When the records were looked at; None: they need not be. Raises ValidationFailed where they forbid it."""
        ...


class Validate(Protocol):
    """Makes one attempt to validate challenges of one type."""

    async def __call__(self, identifier: Identifier, token: str, key_authorization: str) -> None:
        """Return if control is proven; raise ValidationFailed if not."""
        ...


@dataclass(eq=False)
class Task:
    """A validation under way and the failures of its attempts so far.

    `begun` is the event loop's time; `announced` says whether it is stored that this is under way.
    """

    id: ChallengeId
    order: ACMEOrder
    account: Key
    identifier: Identifier
    token: str
    key_authorization: str
    quiet: bool
    begun: float
    announced: bool = False
    failures: list[StoredProblem] = field(default_factory=list)
    _now: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, order: ACMEOrder, id_: ChallengeId, thumbprint: str, *, quiet: bool, now: float) -> Task:
        """The validation of that challenge; the key authorization is fixed here."""
        token = next(
            each.token for each in order.spec.tokens if each.authorization == id_.position and each.type == id_.type
        )
        identifier = order.status.authorizations[id_.position].identifier
        account = order.metadata.namespace, order.spec.account_ref.name
        return cls(id_, order, account, identifier, token, f"{token}.{thumbprint}", quiet, now)

    def hurry(self, *, quiet: bool) -> None:
        """Make the next attempt now; from now on it is known to be wanted, unless `quiet`."""
        self.quiet = self.quiet and quiet
        self._now.set()

    async def pause(self, seconds: float) -> None:
        """Wait for that long, or until somebody is in a hurry."""
        self._now.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._now.wait()
        except TimeoutError:
            return

    def problem(self) -> StoredProblem | None:
        """The failures in one: the last one, with those before it as subproblems (RFC 8555, 8.2)."""
        if not self.failures:
            return None
        *earlier, last = self.failures
        if not earlier:
            return last
        return StoredProblem(
            type=last.type,
            detail=f"{last.detail} ({len(self.failures)} attempts)",
            subproblems=tuple(
                StoredSubProblem(type=each.type, detail=each.detail, identifier=self.identifier) for each in earlier
            ),
        )


@dataclass(frozen=True, slots=True)
class _Failure:
    temporary: bool


class Attempts:
    """Makes the attempts: `in_flight` at a time, and for one account no more than a quarter of them.

    So an account whose hosts are slow, by accident or on purpose, does not keep the others waiting.
    """

    def __init__(
        self,
        *,
        validators: Mapping[ChallengeType, Validate],
        permit: Permit,
        clock: Clock,
        metrics: Metrics,
        pace: Pace,
        in_flight: int,
    ) -> None:
        self._validators = validators
        self._permit = permit
        self._clock = clock
        self._metrics = metrics
        self._pace = pace
        self._slots = asyncio.Semaphore(in_flight)
        self._share = max(1, in_flight // _SHARES)
        self._shares: WeakValueDictionary[Key, asyncio.Semaphore] = WeakValueDictionary()

    def can(self, type_: ChallengeType) -> bool:
        """Whether there is a validator for challenges of that type."""
        return type_ in self._validators

    async def outcome(self, task: Task) -> Outcome:
        """Attempt until control is proven, an attempt fails for good, or it is time to give up."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        share = self._shares.setdefault(task.account, asyncio.Semaphore(self._share))
        for pause in (*self._pace.retries, None):
            async with share, self._slots:
                attempt = await self._attempt(task)
            if isinstance(attempt, Valid):
                self._metrics.observe_validation(task.id.type, "valid", loop.time() - started)
                return attempt
            if not attempt.temporary or pause is None or loop.time() - started + pause > self._pace.within:
                break
            await task.pause(pause)
        problem = task.problem() or _internal()
        self._metrics.observe_validation(task.id.type, problem.type, loop.time() - started)
        return Failed(problem)

    async def _attempt(self, task: Task) -> Valid | _Failure:
        """One attempt: that it succeeded, or whether another one may."""
        try:
            validate = self._validators[task.id.type]
            await validate(task.identifier, task.token, task.key_authorization)
            return Valid(self._clock(), await self._permit(task.order, task.id))
        except ValidationFailed as failure:
            task.failures.append(failure.problem)
            return _Failure(temporary=failure.temporary)
        except Exception:  # whatever a foreign server made us stumble over must end as an outcome
            logger.exception("validation broke", extra={"challenge": task.id.type, "identifier": task.identifier.value})
            task.failures.append(_internal())
            return _Failure(temporary=False)


def _internal() -> StoredProblem:
    return StoredProblem(type=ProblemType.SERVER_INTERNAL.value, detail="The server failed to validate the challenge.")
