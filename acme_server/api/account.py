"""newAccount, accounts and their list of orders (RFC 8555, 7.3 and 7.1.2)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import links, views
from acme_server.api.answers import answer, require_no_payload
from acme_server.api.context import ACCOUNTS, ENROLLMENT, LINKS, ORDERS
from acme_server.api.routing import post, post_by_key
from acme_server.authentication import AccountHolder, KeyHolder
from acme_server.problems import not_found
from acme_server.wire import AccountUpdate, NewAccount, decode


async def open_account(request: web.Request, caller: KeyHolder) -> web.Response:
    """Open an account (201), or tell which one the key has (200): both with its URL (M75, M76)."""
    account, opened = await request.app[ENROLLMENT].account(caller, decode(caller.payload, NewAccount))
    at = request.app[LINKS]
    status = HTTPStatus.CREATED if opened else HTTPStatus.OK
    return answer(views.account(account, at), status=status, location=at.account(account))


async def read_or_update(request: web.Request, caller: AccountHolder) -> web.Response:
    """Read an account, change its contacts or deactivate it (M84, M102)."""
    _require_own(request, caller)
    accounts = request.app[ACCOUNTS]
    if caller.payload:
        account = await accounts.update(caller.account, decode(caller.payload, AccountUpdate))
    else:
        account = await accounts.current(caller.account)
    at = request.app[LINKS]
    return answer(views.account(account, at), location=at.account(account))


async def orders(request: web.Request, caller: AccountHolder) -> web.Response:
    """List the orders of the account to itself (M54, M55)."""
    _require_own(request, caller)
    require_no_payload(caller.payload)
    at = request.app[LINKS]
    names = await request.app[ORDERS].names_of(caller.account)
    return answer(views.orders([at.order_named(*caller.profile.key, name) for name in names]))


def _require_own(request: web.Request, caller: AccountHolder) -> None:
    """Another account's URL answers as one that does not exist (SEC03)."""
    if request.match_info["account"] != caller.account.metadata.name:
        raise not_found()


ROUTES = (
    post_by_key(links.NEW_ACCOUNT, open_account),
    post(links.ACCOUNT, read_or_update),
    post(links.ORDERS, orders),
)
