"""How long what the server has stored is kept. Pure: the time is handed in.

An order is kept until its certificate has expired: it is the inventory, revocation needs it, and a revoked certificate
must stay on the revocation list until it would have ended anyway. What came to nothing goes after a day, which
leaves clients and people time to ask what went wrong.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from kms.contract import READY
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import condition
from kms.resources.orders import ACMEOrder

CAME_TO_NOTHING = timedelta(days=1)
"""For orders that failed or were abandoned."""
MARGIN = timedelta(days=1)
"""Beyond the end of a certificate, for clocks that are slow and for one more revocation list."""
COMPROMISED = timedelta(days=365)
"""Beyond the end of a certificate whose key was compromised: for as long, the key is not certified again."""


def kept_until(order: ACMEOrder) -> datetime | None:
    """When the order may go; None: not as long as it is in this state.

    Never before its proofs have ended: other orders may rely on them.
    """
    own = _own_time(order)
    if own is None:
        return None
    authorizations = (each.expires for each in order.status.authorizations if each.state == "valid")
    return max((own, *authorizations))


def _own_time(order: ACMEOrder) -> datetime | None:
    status = order.status
    match status.state:
        case "processing":
            return None  # it is resumed until it becomes valid or invalid
        case "valid" if status.not_after is not None:
            revocation = status.revocation
            compromised = revocation is not None and revocation.reason == "keyCompromise"
            return status.not_after + (COMPROMISED if compromised else MARGIN)
        case "invalid":
            ready = condition(status.conditions, READY)
            return (ready.last_transition_time if ready is not None else order.spec.expires) + CAME_TO_NOTHING
        case _:
            return order.spec.expires + CAME_TO_NOTHING


def is_abandoned(account: ACMEAccount, *, retention: timedelta | None, has_orders: bool, now: datetime) -> bool:
    """Whether the account may go: the profile says after how long, it is older than that, and nothing is left of it.

    One that was deactivated or revoked stays, else its key could open another one.
    """
    created = account.metadata.creation_timestamp
    if retention is None or has_orders or created is None or account.status.state != "valid":
        return False
    return now - created > retention
