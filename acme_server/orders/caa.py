"""CAA checks (RFC 8659), where the profile asks for them.

The records of a name are checked after the validation of its challenge, and again at finalization if that was too long
ago or the authorization is reused.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from acme_server.metrics import Metrics
from acme_server.model import ChallengeId
from acme_server.orders.identifiers import refusal
from acme_server.problems import ProblemType, Refused, SubProblem, Unavailable
from acme_server.profiles import Profiles
from acme_server.urls import URLs
from acme_server.validation import caa_rules
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.caa_lookup import CAALookup, Holder, RelevantSet
from kms.clock import Clock
from kms.resources.orders import ACMEOrder, ChallengeType
from kms.resources.profiles import AcmeEnrollment

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Objection:
    """Why an identifier must not be certified. `temporary`: its records could not be looked up."""

    position: int
    detail: str
    temporary: bool


class CAA:
    """Checks CAA records for profiles."""

    def __init__(self, *, lookup: CAALookup, profiles: Profiles, urls: URLs, clock: Clock, metrics: Metrics) -> None:
        self._lookup = lookup
        self._profiles = profiles
        self._urls = urls
        self._clock = clock
        self._metrics = metrics

    async def check_challenge(self, order: ACMEOrder, id_: ChallengeId) -> datetime | None:
        """Check the records of an identifier whose challenge is valid; return when (None: not checked).

        Raises ValidationFailed (caa) if the profile enforces them, and they forbid or cannot be looked up.
        """
        acme = self._enrollment(order)
        if acme is None:
            raise ValidationFailed(
                ProblemType.SERVER_INTERNAL, "The profile of the order does not exist.", temporary=True
            )
        if acme.caa == "Off" or order.status.authorizations[id_.position].identifier.type != "dns":
            return None
        now = self._clock()
        try:
            objections = await self._objections(acme, order, {id_.position: id_.type})
        except Unavailable as error:
            raise ValidationFailed(ProblemType.SERVER_INTERNAL, error.detail, temporary=True) from None
        for objection in objections:
            raise ValidationFailed(ProblemType.CAA, objection.detail, temporary=objection.temporary)
        return now

    async def check_order(self, order: ACMEOrder) -> None:
        """Check the records that have not been checked recently, before a certificate is issued.

        Raises Refused (caa) with a subproblem for each identifier that must not be certified, and for names that need
        too many lookups; Unavailable while there are too many lookups altogether, and without the profile, which says
        what to check.
        """
        acme = self._enrollment(order)
        if acme is None:
            raise Unavailable("The profile of the order does not exist.", 10)
        if acme.caa == "Off":
            return
        positions = caa_rules.find_unchecked(order, now=self._clock())
        names = {order.status.authorizations[each].identifier.value for each in positions}
        if excess := caa_rules.objection_to_extent(names):  # ordered while CAA was off
            raise Refused(ProblemType.CAA, excess)
        with self._lookup.admit(names, _holder(order)):
            objections = await self._objections(acme, order, {each: _method(order, each) for each in positions})
        if objections:
            raise _refusal(order, objections)

    def _enrollment(self, order: ACMEOrder) -> AcmeEnrollment | None:
        return self._profiles.enrollment(order.metadata.namespace, order.spec.profile_ref.name)

    async def _objections(
        self, acme: AcmeEnrollment, order: ACMEOrder, methods: Mapping[int, ChallengeType | None]
    ) -> Sequence[_Objection]:
        """The objections to the identifiers at these positions; none where the profile only reports them."""
        names = {order.status.authorizations[position].identifier.value for position in methods}
        found = await self._lookup.find_relevant(names, _holder(order))
        account = self._urls.account_of(order)
        objections = []
        for position, method in methods.items():
            authorization = order.status.authorizations[position]
            issuance = caa_rules.Issuance(
                wildcard=authorization.wildcard, issuers=acme.caa_identities, account=account, method=method
            )
            objection = _objection(position, authorization.identifier.value, found, issuance)
            self._report(acme, order, objection)
            if objection is not None:
                objections.append(objection)
        return objections if acme.caa == "Enforce" else ()

    def _report(self, acme: AcmeEnrollment, order: ACMEOrder, objection: _Objection | None) -> None:
        if objection is None:
            self._metrics.count_caa_check(acme.caa, "allowed")
            return
        self._metrics.count_caa_check(acme.caa, "failed" if objection.temporary else "forbidden")
        logger.warning(
            "CAA forbids a certificate",
            extra={
                "order": order.metadata.name,
                "profile": f"{order.metadata.namespace}/{order.spec.profile_ref.name}",
                "mode": acme.caa,
                "error": objection.detail,
            },
        )


def _objection(
    position: int, name: str, found: Mapping[str, RelevantSet], issuance: caa_rules.Issuance
) -> _Objection | None:
    relevant = found[name]
    shown = f"*.{name}" if issuance.wildcard else name
    if relevant.failure is not None:
        where = f" at {relevant.owner}" if relevant.owner else ""
        detail = f"The CAA records for {shown} cannot be looked up{where}: {relevant.failure}."
        return _Objection(position, detail, temporary=True)
    why = caa_rules.objection(relevant.properties, issuance)
    if why is None:
        return None
    return _Objection(position, f"The CAA records at {relevant.owner} forbid a certificate for {shown}: {why}.", False)


def _holder(order: ACMEOrder) -> Holder:
    return Holder(order.metadata.namespace, order.tenant, order.spec.account_ref.name)


def _method(order: ACMEOrder, position: int) -> ChallengeType | None:
    """The type of the valid challenge; None: there is none."""
    challenges = order.status.authorizations[position].challenges
    return next((each.type for each in challenges if each.state == "valid"), None)


def _refusal(order: ACMEOrder, objections: Collection[_Objection]) -> Refused:
    return refusal(
        [SubProblem(ProblemType.CAA, each.detail, order.spec.identifiers[each.position]) for each in objections]
    )
