"""The state machine of accounts (RFC 8555, 7.1.6), and the keys that they have had (7.3.5).

Pure: an account and an event in, an account or a refusal out.

    account  not open -> valid <-> suspended;  valid, suspended -> deactivated | revoked
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from acme_server.accounts import contacts, slots
from acme_server.jose.jwk import AccountKey
from acme_server.problems import AccountNotValid, NotFound, ProblemType, Refused
from kms.resources.accounts import LIVE_STATES, AccountStatus, ACMEAccount, CurrentKey

MAXIMUM_FORMER_KEYS = 100
"""Keys that an account may have given up: each keeps an object, so that it opens no other account."""


def require_live(account: ACMEAccount) -> ACMEAccount:
    """The account, if it is valid or suspended: it may read what it has. Raises AccountNotValid."""
    if account.status.state not in LIVE_STATES:
        raise AccountNotValid(f"The account is {account.status.state or 'not open'}.")
    return account


def require_valid(account: ACMEAccount) -> ACMEAccount:
    """The account, if it is valid. Raises AccountNotValid, and Refused (unauthorized) if it is suspended."""
    if require_live(account).status.state == "suspended":
        raise Refused(ProblemType.UNAUTHORIZED, "The account is suspended; an administrator can resume it.")
    return account


def opened(account: ACMEAccount, *, status: AccountStatus) -> ACMEAccount:
    """Open the account (to valid); an account that is open does not change."""
    return account if slots.is_open(account) else replace(account, status=status)


def with_contact(account: ACMEAccount, *, contact: tuple[str, ...]) -> ACMEAccount:
    """Other contacts. Raises as `require_valid` does."""
    status = replace(require_valid(account).status, contact=contact, contact_text=contacts.text(contact))
    return replace(account, status=status)


def agreed(account: ACMEAccount, *, terms: str) -> ACMEAccount:
    """Agreed to these terms of service. Raises as `require_valid` does."""
    return replace(account, status=replace(require_valid(account).status, terms_of_service_agreed=terms))


def suspended(account: ACMEAccount, *, now: datetime) -> ACMEAccount:
    """Valid to suspended; other states do not change. Raises NotFound if the account is not open."""
    if account.status.state is None:
        raise NotFound
    if account.status.state != "valid":
        return account
    return replace(account, status=replace(account.status, state="suspended", suspended_at=now))


def resumed(account: ACMEAccount, *, now: datetime) -> ACMEAccount:
    """Suspended to valid, also where its EABCredential was suspended when it was deleted.

    Final states do not change. Raises NotFound if the account is not open.
    """
    status = account.status
    if status.state is None:
        raise NotFound
    if status.state not in LIVE_STATES:
        return account
    record = status.credential
    if record is not None and record.suspended:
        state = "Deleted" if record.state == "Deleted" else "Active"
        record = replace(record, state=state, suspended=False, changed_at=now)
    return replace(account, status=replace(status, state="valid", suspended_at=None, credential=record))


def deactivated(account: ACMEAccount, *, now: datetime) -> ACMEAccount:
    """Valid or suspended to deactivated; final states absorb. Raises NotFound if the account is not open."""
    if account.status.state is None:
        raise NotFound
    if account.status.state not in LIVE_STATES:
        return account
    return replace(account, status=replace(account.status, state="deactivated", deactivated_at=now))


def with_key(account: ACMEAccount, key: AccountKey, *, old: str, now: datetime) -> ACMEAccount:
    """Another key in the place of the one with the thumbprint `old`, which stays known as a key of the account.

    Orders and authorizations are the account's as before. Raises as `require_valid` does, and Refused:
    malformed if its key is not `old` (of two changes at once, the second one finds this), and unauthorized
    where it has had too many.
    """
    status = require_valid(account).status
    if account.thumbprint != old:
        raise Refused(
            ProblemType.MALFORMED,
            "The oldKey is not the key of the account; another request may have changed it a moment ago.",
        )
    former = tuple(dict.fromkeys((*status.former_keys, old)))
    if len(former) > MAXIMUM_FORMER_KEYS:
        raise Refused(
            ProblemType.UNAUTHORIZED,
            f"The key of the account was changed {MAXIMUM_FORMER_KEYS} times; open a new account with the new key.",
        )
    current = CurrentKey(jwk=key.jwk, thumbprint=key.thumbprint, changed_at=now)
    return replace(account, status=replace(status, key=current, former_keys=former))


def has_had(account: ACMEAccount, thumbprint: str) -> bool:
    """Whether that is the account's key, or was until it was changed."""
    return thumbprint in {account.thumbprint, account.spec.thumbprint, *account.status.former_keys}
