"""One validation: a few attempts within a few seconds, and its outcome (RFC 8555, 8.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from acme_server.fair_slots import FairSlots, Path
from acme_server.metrics import Metrics
from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.problems import NotFound, ProblemType
from acme_server.validation.shares import Limits
from kms.clock import Clock
from kms.resources.orders import ACMEOrder, ChallengeType, Identifier, StoredProblem, StoredSubProblem, token_of

logger = logging.getLogger(__name__)

Validator = Callable[[Identifier, str, str], Awaitable[None]]
"""Makes one attempt to validate an identifier with a token and a key authorization. Raises ValidationFailed."""

CheckCAA = Callable[[ACMEOrder, ChallengeId], Awaitable[datetime | None]]
"""Looks up the CAA records of an identifier that was validated, and returns when; None: they need no check.

Raises ValidationFailed if they forbid a certificate."""


@dataclass(frozen=True, slots=True)
class ValidationTiming:
    """Seconds.

    `idle`: outcomes are stored when no challenge was answered for that long. `hold`: no outcome is held longer.
    `poll`: how long a client's poll waits, and after which time a validation is stored as processing.
    `retry_delays`: the pauses between attempts; none begins later than `retry_for` after the first.
    `store_delays`: the pauses before outcomes are stored again that the API server did not accept, the last of them
    again and again until `store_for` has passed.
    """

    idle: float = 0.5
    hold: float = 2.0
    poll: float = 2.0
    retry_delays: tuple[float, ...] = (0.5, 1.5, 3.0, 4.0)
    retry_for: float = 10.0
    store_delays: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0)
    store_for: float = 300.0


def account_path(order: ACMEOrder) -> Path:
    """Return (namespace, profile, tenant, account) of the order, by which attempts are shared."""
    return order.metadata.namespace, order.spec.profile_ref.name, order.tenant, order.spec.account_ref.name


class ValidationFailed(Exception):
    """A failed attempt. `temporary`: another attempt may succeed."""

    def __init__(self, type_: ProblemType, detail: str, *, temporary: bool = False) -> None:
        super().__init__(detail)
        self.problem = StoredProblem(type=type_.value, detail=detail)
        self.temporary = temporary


@dataclass(eq=False)
class Validation:
    """A running validation and the failures of its attempts so far.

    `started` is the event loop's time; `announced`: the order stores that the challenge is in processing. `quiet`: it
    is not known that the client asked for it, so its failure does not count.
    """

    id: ChallengeId
    order: ACMEOrder
    account: Path
    identifier: Identifier
    token: str
    key_authorization: str
    quiet: bool
    started: float
    announced: bool = False
    failures: list[StoredProblem] = field(default_factory=list)
    _retry_now: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, order: ACMEOrder, id_: ChallengeId, thumbprint: str, *, quiet: bool, now: float) -> Validation:
        """The validation of that challenge; the key authorization is fixed here."""
        token = token_of(order.spec, id_.position, id_.type)
        if token is None:
            raise NotFound
        identifier = order.status.authorizations[id_.position].identifier
        return cls(id_, order, account_path(order), identifier, token, f"{token}.{thumbprint}", quiet, now)

    def retry_now(self, *, quiet: bool) -> None:
        """End the pause before the next attempt. Without `quiet` the client has asked for this validation."""
        self.quiet = self.quiet and quiet
        self._retry_now.set()

    async def pause(self, seconds: float) -> None:
        """Wait for that long, or until `retry_now` is called."""
        self._retry_now.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._retry_now.wait()
        except TimeoutError:
            return

    def problem(self) -> StoredProblem | None:
        """The last failure, with the earlier ones as subproblems (RFC 8555, 8.2)."""
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
    """Runs validations, within the limits of attempts at a time that share them out.

    So neither an account nor a tenant with slow hosts delays the others.
    """

    def __init__(
        self,
        *,
        validators: Mapping[ChallengeType, Validator],
        check_caa: CheckCAA,
        clock: Clock,
        metrics: Metrics,
        timing: ValidationTiming,
        in_flight: Limits,
    ) -> None:
        self._validators = validators
        self._check_caa = check_caa
        self._clock = clock
        self._metrics = metrics
        self._timing = timing
        self._slots = FairSlots(in_flight)

    async def run(self, validation: Validation) -> Outcome:
        """Attempt until control is proven, an attempt fails for good, or the time for attempts is over."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        first: float | None = None
        for delay in (*self._timing.retry_delays, None):
            await self._slots.acquire(validation.account)
            try:
                first = loop.time() if first is None else first
                result = await self._attempt(validation)
            finally:
                self._slots.release(validation.account)
            if isinstance(result, Valid):
                self._metrics.observe_validation(validation.id.type, "valid", loop.time() - started)
                return result
            if not result.temporary or delay is None or loop.time() - first + delay > self._timing.retry_for:
                break
            await validation.pause(delay)
        problem = validation.problem() or _server_internal()
        self._metrics.observe_validation(validation.id.type, problem.type, loop.time() - started)
        return Failed(problem)

    async def _attempt(self, validation: Validation) -> Valid | _Failure:
        try:
            validate = self._validators[validation.id.type]
            await validate(validation.identifier, validation.token, validation.key_authorization)
            return Valid(self._clock(), await self._check_caa(validation.order, validation.id))
        except ValidationFailed as failure:
            validation.failures.append(failure.problem)
            return _Failure(temporary=failure.temporary)
        except Exception:  # what a foreign server provokes must become an outcome
            logger.exception(
                "unexpected error during a validation",
                extra={"challenge": validation.id.type, "identifier": validation.identifier.value},
            )
            validation.failures.append(_server_internal())
            return _Failure(temporary=False)


def _server_internal() -> StoredProblem:
    return StoredProblem(type=ProblemType.SERVER_INTERNAL.value, detail="The server failed to validate the challenge.")
