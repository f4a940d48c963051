"""Stores the results of validations."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from acme_server.metrics import Metrics
from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.orders import transitions
from acme_server.problems import ACMEError, ProblemType
from acme_server.profiles import Profiles
from acme_server.state.store import Store
from kms.clock import Clock
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ACMEOrder, StoredProblem

logger = logging.getLogger(__name__)

_INACTIVE = StoredProblem(
    type=ProblemType.UNAUTHORIZED.value, detail="The account was deactivated before the challenge was validated."
)


class ValidationResults:
    """Applies results to stored orders. `attempt` identifies this process to other replicas."""

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        accounts: Store[ACMEAccount],
        profiles: Profiles,
        clock: Clock,
        metrics: Metrics,
        attempt: str,
    ) -> None:
        self._orders = orders
        self._accounts = accounts
        self._profiles = profiles
        self._clock = clock
        self._metrics = metrics
        self._attempt = attempt

    async def record(
        self,
        order: ACMEOrder,
        outcomes: Mapping[ChallengeId, Outcome],
        running: Mapping[ChallengeId, StoredProblem | None],
    ) -> ACMEOrder:
        """Store the outcomes, and which challenges are still being validated, in one write.

        A challenge becomes valid only if the account is valid by its latest version. Raises Unavailable, and Refused
        (404) where the order is gone.
        """
        if any(isinstance(each, Valid) for each in outcomes.values()) and not await self._is_account_valid(order):
            outcomes = {id_: Failed(_INACTIVE) for id_ in outcomes}
        now = self._clock()
        lifetime = self._lifetime(order)

        def transition(current: ACMEOrder) -> ACMEOrder:
            settled = transitions.validated(current, outcomes, lifetime=lifetime, now=now)
            return transitions.begun(settled, running, attempt=self._attempt, now=now)

        recorded = await self._orders.change(order, transition)
        self._log(recorded, outcomes)
        return recorded

    async def _is_account_valid(self, order: ACMEOrder) -> bool:
        """Whether the account is valid, by its latest version."""
        account = await self._accounts.current(order.metadata.namespace, order.spec.account_ref.name)
        return account is not None and account.status.state == "valid"

    def _lifetime(self, order: ACMEOrder) -> timedelta:
        try:
            return self._profiles.of(order.metadata.namespace, order.spec.profile_ref.name).authorization_lifetime
        except ACMEError:
            # The profile is broken or deleted: the authorization is valid as long as its order.
            return timedelta(0)

    def _log(self, order: ACMEOrder, outcomes: Mapping[ChallengeId, Outcome]) -> None:
        for id_, outcome in outcomes.items():
            problem = outcome.problem if isinstance(outcome, Failed) else None
            logger.info(
                "challenge invalid" if problem else "challenge valid",
                extra={
                    "order": order.metadata.name,
                    "identifier": order.status.authorizations[id_.position].identifier.value,
                    "challenge": id_.type,
                    "error": problem and f"{problem.type}: {problem.detail}",
                },
            )
        if order.status.state == "invalid":
            self._metrics.count_order("invalid")
