"""How long accounts and orders are kept. Pure: the time is an argument.

An order is kept until its certificate has expired: it is the record of the certificate, revocation needs it, and a
revoked certificate must stay on the CRL until it expires. Orders that failed or were abandoned are kept for a day, so
that clients and people can find out what went wrong.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from kms.clock import later
from kms.contract import READY
from kms.pki.crl import KEY_COMPROMISE
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import condition
from kms.resources.orders import ACMEOrder, Revocation

WITHOUT_CERTIFICATE = timedelta(days=1)
"""How long an order is kept after it failed or was abandoned."""
AFTER_EXPIRY = timedelta(days=1)
"""How long an order is kept after its certificate has expired: for slow clocks and one more CRL."""
AFTER_COMPROMISE = timedelta(days=365)
"""The same for a certificate whose key was compromised: until then the key is not certified again."""


def kept_until(order: ACMEOrder) -> datetime | None:
    """When the order may be deleted; None: not in this state.

    Never before its valid authorizations have expired: other orders may reuse them.
    """
    earliest = _earliest_deletion(order)
    if earliest is None:
        return None
    authorizations = (each.expires for each in order.status.authorizations if each.state == "valid")
    return max((earliest, *authorizations))


def certificate_kept_until(not_after: datetime, revocation: Revocation | None) -> datetime:
    """Until when the record of a certificate that ends at `not_after` is kept."""
    compromised = revocation is not None and revocation.reason == KEY_COMPROMISE
    return later(not_after, AFTER_COMPROMISE if compromised else AFTER_EXPIRY)


def _earliest_deletion(order: ACMEOrder) -> datetime | None:
    status = order.status
    match status.state:
        case "processing":
            return None  # a server finishes it: it becomes valid or invalid
        case "valid" if status.not_after is not None:
            return certificate_kept_until(status.not_after, status.revocation)
        case "invalid":
            ready = condition(status.conditions, READY)
            return later(ready.last_transition_time if ready is not None else order.spec.expires, WITHOUT_CERTIFICATE)
        case _:
            return later(order.spec.expires, WITHOUT_CERTIFICATE)


def unsuccessful_until(order: ACMEOrder) -> datetime | None:
    """When an order that has no certificate may be deleted, as far as is known now; None: it has one."""
    if order.status.state == "valid":
        return None
    return _earliest_deletion(order) or later(order.spec.expires, WITHOUT_CERTIFICATE)


def is_abandoned(account: ACMEAccount, *, retention: timedelta | None, has_orders: bool, now: datetime) -> bool:
    """Whether the account may be deleted: it is older than its profile's `retention` and has no orders.

    A deactivated or revoked account stays, because its key must not open a new one.
    """
    created = account.metadata.creation_timestamp
    if retention is None or has_orders or created is None or account.status.state != "valid":
        return False
    return now - created > retention
