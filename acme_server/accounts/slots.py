"""How many accounts a credential may open, decided by the API server alone.

An account takes its place by being created, without a state. Who finds too many before it in a current list deletes
itself again; everybody sees the same order, so of N that race for the last place exactly one stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kms.resources.accounts import ACMEAccount

STALE = timedelta(minutes=1)
"""An account that has not been opened for that long never will be: its server has died in between."""


def is_account(account: ACMEAccount) -> bool:
    """Whether this is an account and no alias, which only keeps the name of a key for one."""
    return account.spec.alias_of is None


def is_open(account: ACMEAccount) -> bool:
    """Whether the account holds its place for good: also a deactivated one does, else a key could be used again.

    An alias is no account, and never open.
    """
    return account.status.state is not None and is_account(account)


def is_stale(account: ACMEAccount, *, now: datetime) -> bool:
    """Whether the account was left behind by a server that died while opening it."""
    created = account.metadata.creation_timestamp
    return not is_open(account) and created is not None and now - created > STALE


def standing(account: ACMEAccount, others: Iterable[ACMEAccount]) -> int:
    """How many of the others come before the account: those that are open, then those that were created earlier."""
    mine = _rank(account)
    return sum(1 for each in others if each.metadata.uid != account.metadata.uid and _rank(each) < mine)


def _rank(account: ACMEAccount) -> tuple[bool, int]:
    # An account that is not open has never been written to, so its version is that of its creation: unique, and in
    # the order in which the API server created them.
    return not is_open(account), int(account.metadata.resource_version)
