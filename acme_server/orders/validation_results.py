"""Stores the results of validations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.transitions import require_valid
from acme_server.audit.log import decisions
from acme_server.metrics import Metrics
from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.orders import transitions
from acme_server.problems import AccountNotValid, ACMEError, ProblemType, Refused
from acme_server.profiles import Profiles
from acme_server.state.store import Store
from kms.clock import Clock
from kms.logs import log_often
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ACMEOrder, StoredProblem


class ValidationResults:
    """Applies results to stored orders. `attempt` identifies this process to other replicas."""

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        accounts: Store[ACMEAccount],
        profiles: Profiles,
        credentials: EABCredentials,
        clock: Clock,
        metrics: Metrics,
        attempt: str,
    ) -> None:
        self._orders = orders
        self._accounts = accounts
        self._profiles = profiles
        self._credentials = credentials
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

        A challenge becomes valid only if the account may act, as far as the watch knows: before anything is signed for
        it, its latest version decides. Raises Unavailable, and Refused (404) where the order is gone.
        """
        if any(isinstance(each, Valid) for each in outcomes.values()) and (why := await self._objection(order)):
            outcomes = dict.fromkeys(outcomes, Failed(why))
        now = self._clock()
        lifetime = self._lifetime(order)

        def transition(current: ACMEOrder) -> ACMEOrder:
            settled = transitions.validated(current, outcomes, lifetime=lifetime, now=now)
            return transitions.begun(settled, running, attempt=self._attempt, now=now)

        recorded = await self._orders.change(order, transition)
        self._log(recorded, outcomes)
        return recorded

    async def _objection(self, order: ACMEOrder) -> StoredProblem | None:
        """Why nothing may be proven for the account; None: it may act. An objection is based on its latest version.

        Raises Unavailable.
        """
        namespace, name = order.metadata.namespace, order.spec.account_ref.name
        acme = self._profiles.enrollment(namespace, order.spec.profile_ref.name)
        problem = None
        for read in (self._accounts.watched, self._accounts.current):
            account = await read(namespace, name)
            try:
                if account is None or acme is None:
                    raise AccountNotValid("The account or its profile no longer exists.")
                require_valid(account)
                await self._credentials.admit(account, acme)
            except Refused as refused:
                problem = StoredProblem(type=ProblemType.UNAUTHORIZED.value, detail=refused.detail)
            else:
                return None
        return problem

    def _lifetime(self, order: ACMEOrder) -> timedelta:
        try:
            return self._profiles.of(order.metadata.namespace, order.spec.profile_ref.name).authorization_lifetime
        except ACMEError:
            # The profile is broken or deleted: the authorization is valid as long as its order.
            return timedelta(0)

    def _log(self, order: ACMEOrder, outcomes: Mapping[ChallengeId, Outcome]) -> None:
        for id_, outcome in outcomes.items():
            problem = outcome.problem if isinstance(outcome, Failed) else None
            log_often(
                decisions,
                "challenge invalid" if problem else "challenge valid",
                {
                    "order": order.metadata.name,
                    "identifier": order.status.authorizations[id_.position].identifier.value,
                    "challenge": id_.type,
                    "error": problem and f"{problem.type}: {problem.detail}",
                },
            )
        if order.status.state == "invalid":
            self._metrics.count_order("invalid", order.profile_key)
