"""Where a person may want to go from the story of an order or an account."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key
from kms.resources.orders import ACMEOrder

_NAMES = 20
"""Names that a link to the try-out has."""


@dataclass(frozen=True, slots=True)
class Link:
    """A page of the console: what the link says, and the path."""

    text: str
    path: str


def links_of_order(order: ACMEOrder, account: ACMEAccount | None) -> tuple[Link, ...]:
    """To its account and profile, and to what the policy says now. `account` of None: it is gone."""
    profile, credential = order.profile_key, account.credential if account is not None else None
    owner = order.metadata.namespace, order.spec.account_ref.name
    tried = {"profile": "/".join(profile), "names": " ".join(each.value for each in order.spec.identifiers[:_NAMES])}
    if credential is not None:
        tried["credential"] = "/".join(credential)
    found = [_profile(profile), Link("What the policy says about these names now", f"try?{urlencode(tried)}")]
    if account is not None:
        found = [Link(f"Account {'/'.join(owner)}", f"accounts/{_path(owner)}"), _orders(owner), *found]
    return tuple(found)


def links_of_account(account: ACMEAccount) -> tuple[Link, ...]:
    """To its orders and profile, and to the other accounts of its credential."""
    key = account.metadata.namespace, account.metadata.name
    found = [_orders(key), _profile((key[0], account.spec.profile_ref.name))]
    if account.credential is not None:
        name = "/".join(account.credential)
        found.append(Link(f"Accounts of EABCredential {name}", f"accounts?{urlencode({'q': name})}"))
    return tuple(found)


def _profile(key: Key) -> Link:
    return Link(f"Profile {'/'.join(key)}, and how to enroll with it", f"profiles/{_path(key)}")


def _orders(account: Key) -> Link:
    return Link("All orders of this account", f"orders?{urlencode({'account': '/'.join(account)})}")


def _path(key: Key) -> str:
    return "/".join(quote(each, safe="") for each in key)
