"""How many accounts a credential may open. The order of creation at the API server decides.

A server creates an account without a state, lists all accounts of the credential, and deletes the new account again
where too many rank before it. All servers see the same order, so of N accounts that race for the last slot one remains.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kms.resources.accounts import ACMEAccount

STALE = timedelta(minutes=1)
"""After this time, the server that was opening the account has died."""


def is_account(account: ACMEAccount) -> bool:
    """Whether this is an account and not an alias, which only reserves the name of a key."""
    return account.spec.alias_of is None


def is_open(account: ACMEAccount) -> bool:
    """Whether the account is open. A deactivated one is too, or its key could be used again. An alias never is."""
    return account.status.state is not None and is_account(account)


def is_stale(account: ACMEAccount, *, now: datetime) -> bool:
    """Whether the server died that was opening the account."""
    created = account.metadata.creation_timestamp
    return not is_open(account) and created is not None and now - created > STALE


def count_before(account: ACMEAccount, others: Iterable[ACMEAccount]) -> int:
    """How many of the others rank before the account: open accounts first, then in the order of creation."""
    mine = _rank(account)
    return sum(1 for each in others if each.metadata.uid != account.metadata.uid and _rank(each) < mine)


def _rank(account: ACMEAccount) -> tuple[bool, int]:
    # An account that is not open has never been written to, so its version is that of its creation: unique, and in
    # the order in which the API server created them.
    return not is_open(account), int(account.metadata.resource_version)
