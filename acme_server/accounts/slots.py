"""How many accounts a credential may open. The order of creation at the API server decides.

A server creates an account without a state, lists all accounts of the credential, and deletes the new account again
where too many rank before it. All servers see the same order, so of N accounts that race for the last slot one remains.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kms.resources.accounts import ACMEAccount
from kms.resources.meta import ObjectMeta

STALE = timedelta(minutes=1)
"""After this time, the server that was opening the account has died."""


def is_account(account: ACMEAccount) -> bool:
    """Whether this is an account and not an alias, which only reserves the name of a key."""
    return account.spec.alias_of is None


def is_open(account: ACMEAccount) -> bool:
    """Whether the account is open. A deactivated one is too, or its key could be used again. An alias never is."""
    return account.status.state is not None and account.spec.alias_of is None


def is_stale(account: ACMEAccount, *, now: datetime) -> bool:
    """Whether the server died that was opening the account."""
    return not is_open(account) and is_overdue(account.metadata, now=now)


def is_overdue(claim: ObjectMeta, *, now: datetime) -> bool:
    """Whether an account that is not open was created so long ago that its server must have died."""
    return claim.creation_timestamp is not None and now - claim.creation_timestamp > STALE


def count_before(claim: ObjectMeta, *, claims: Iterable[ObjectMeta], opened: Iterable[ObjectMeta]) -> int:
    """How many of the others rank before the claim: open accounts first, then `claims` in the order of creation.

    List the claims first: one that is opened between the two lists is in both, and counts once.
    """
    mine = _rank(claim)
    before = {each.uid for each in opened} | {each.uid for each in claims if _rank(each) < mine}
    return len(before - {claim.uid})


def _rank(claim: ObjectMeta) -> int:
    # An account that is not open has never been written to, so its version is that of its creation: unique, and in
    # the order in which the API server created them.
    return int(claim.resource_version)
