"""Whether an account may order these names and dates. Pure: newOrder and `kms-acme policy test` ask the same.

An order passes `require_short`, `identifiers.normalise`, `admit_names` and `admit_dates`, in this order; `admit` is all
of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from acme_server.model import OrderProfile, Profile, RequestedIdentifier
from acme_server.orders import identifiers, lifetimes, policy
from acme_server.problems import ProblemType, Refused
from acme_server.validation import caa_rules
from kms.pki.names import Name
from kms.pki.policy import Narrowing
from kms.resources.orders import ChallengeType

MAXIMUM_NAME_CHARACTERS = 8_192
"""Of all names of an order together: a hundred names of 80 characters. Orders store names several times."""


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What an account may order from a directory.

    `narrowing` is that of its credential, `granted` the names that the profile gives the namespace of its clients.
    `types` are the challenges that are offered; None: its names need no proof. `objection` says why an address must not
    be certified.
    """

    directory: Profile
    narrowing: Narrowing | None
    granted: Narrowing | None
    types: tuple[ChallengeType, ...] | None
    objection: policy.Objection = policy.no_objection


def admit(
    wanted: Sequence[RequestedIdentifier],
    not_before: datetime | None,
    not_after: datetime | None,
    *,
    chosen: OrderProfile,
    entitlement: Entitlement,
    now: datetime,
) -> tuple[Name, ...]:
    """The names of an order that would be created now, as far as its contents decide that.

    Raises Refused, and Unavailable if the CA ends too soon.
    """
    require_short(wanted)
    names = identifiers.normalise(wanted)
    admit_names(names, chosen, entitlement)
    admit_dates(not_before, not_after, chosen.profile, now=now)
    return names


def require_short(wanted: Sequence[RequestedIdentifier]) -> int:
    """The number of characters of all identifiers. Raises Refused (malformed) if an order may not have as many."""
    size = sum(len(each.value) for each in wanted)
    if size > MAXIMUM_NAME_CHARACTERS:
        raise Refused(
            ProblemType.MALFORMED,
            f"The identifiers have {size} characters together, and an order may have {MAXIMUM_NAME_CHARACTERS}; order"
            " several certificates.",
        )
    return size


def admit_names(names: Sequence[Name], chosen: OrderProfile, entitlement: Entitlement) -> None:
    """Check the names, so that no client proves control of one that cannot be certified.

    Raises Refused: rejectedIdentifier, invalidProfile.
    """
    directory = entitlement.directory
    policy.admit_choice(
        names,
        chosen,
        directory,
        narrowing=entitlement.narrowing,
        granted=entitlement.granted,
        types=entitlement.types,
        objection=entitlement.objection,
    )
    if directory.acme.caa != "Off":
        looked_up = [name.base for name in names if name.type == "dns"]
        if excess := caa_rules.objection_to_extent(looked_up):
            raise Refused(ProblemType.REJECTED_IDENTIFIER, excess)


def admit_dates(
    not_before: datetime | None, not_after: datetime | None, profile: Profile, *, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """The requested dates as certificates have them. Raises Refused (malformed), and Unavailable."""
    dates = lifetimes.requested_validity(not_before, not_after, profile, now=now)
    lifetimes.require_rest(dates[1], profile, now=now)
    return dates
