"""newAccount, accounts, their keys and their list of orders (RFC 8555, 7.3 and 7.1.2)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.accounts.key_rollover import KeyInUse
from acme_server.api import representations
from acme_server.api.authentication import AccountHolder, KeyHolder
from acme_server.api.context import ACCOUNTS, NEW_ACCOUNTS, ORDERS, URLS
from acme_server.api.payloads import AccountUpdate, NewAccount, decode
from acme_server.api.problems import HTTPRefusal
from acme_server.api.responses import answer, link, require_no_payload
from acme_server.api.routing import post, post_by_key
from acme_server.jose import key_rollover
from acme_server.problems import NotFound


async def open_account(request: web.Request, caller: KeyHolder) -> web.Response:
    """Open an account (201), or tell which one the key has (200): both with its URL."""
    account, opened = await request.app[NEW_ACCOUNTS].account(caller, decode(caller.payload, NewAccount))
    at = request.app[URLS]
    status = HTTPStatus.CREATED if opened else HTTPStatus.OK
    return answer(representations.account(account, at), status=status, location=at.account(account))


async def read_or_update(request: web.Request, caller: AccountHolder) -> web.Response:
    """Read an account, change its contacts or deactivate it."""
    _require_own(request, caller)
    accounts = request.app[ACCOUNTS]
    if caller.payload:
        account = await accounts.update(caller.account, decode(caller.payload, AccountUpdate))
    else:
        account = await accounts.current(caller.account)
    at = request.app[URLS]
    return answer(representations.account(account, at), location=at.account(account))


async def orders(request: web.Request, caller: AccountHolder) -> web.Response:
    """List the orders of the account to itself, page by page."""
    _require_own(request, caller)
    require_no_payload(caller.payload)
    at = request.app[URLS]
    names, following = await request.app[ORDERS].page_of(caller.account, request.match_info.get("cursor", ""))
    view = representations.orders([at.order_named(*caller.profile.key, name) for name in names])
    more = {"Link": link(at.more_orders(caller.account, following), "next")} if following else None
    return answer(view, headers=more)


async def change_key(request: web.Request, caller: AccountHolder) -> web.Response:
    """Give the account another key; one that has an account already is answered with where that is."""
    at = request.app[URLS]
    wanted = key_rollover.parse(
        caller.payload, url=at.key_change(*caller.profile.key), account=at.account(caller.account)
    )
    try:
        account = await request.app[ACCOUNTS].change_key(caller.profile, caller.account, wanted.new, old=wanted.old)
    except KeyInUse as error:
        location = at.account(error.account)
        raise HTTPRefusal(
            error.type, error.detail, status=HTTPStatus.CONFLICT, headers={"Location": location}
        ) from None
    return answer(representations.account(account, at), location=at.account(account))


def _require_own(request: web.Request, caller: AccountHolder) -> None:
    """Another account's URL answers as one that does not exist."""
    if request.match_info["account"] != caller.account.metadata.name:
        raise NotFound


ROUTES = (
    post_by_key(urls.NEW_ACCOUNT, open_account),
    post(urls.ACCOUNT, read_or_update),
    post(urls.ORDERS, orders),
    post(urls.MORE_ORDERS, orders),
    post(urls.KEY_CHANGE, change_key),
)
