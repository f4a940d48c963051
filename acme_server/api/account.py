"""newAccount, accounts, their keys and their list of orders (RFC 8555, 7.3 and 7.1.2)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.accounts.key_rollover import KeyInUse
from acme_server.api import representations
from acme_server.api.authentication import AccountRequest, KeyRequest
from acme_server.api.context import Context
from acme_server.api.problems import HTTPRefusal
from acme_server.api.request import Request
from acme_server.api.responses import answer, link, require_no_payload
from acme_server.api.routing import post, post_by_key, post_of_live_account
from acme_server.jose import key_rollover
from acme_server.payloads import AccountUpdate, NewAccount, decode
from acme_server.problems import NotFound
from kms.resources import ACMEAccount


async def open_account(_: Request, context: Context, signed: KeyRequest) -> web.Response:
    """Open an account (201), or find the one of the key (200)."""
    wanted = decode(signed.payload, NewAccount)
    account, opened = await context.new_accounts.open(signed.holder, wanted, url=signed.url)
    at = context.urls
    status = HTTPStatus.CREATED if opened else HTTPStatus.OK
    return answer(representations.account(account, at), status=status, location=at.account(account))


async def read_or_update(request: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Read an account, change its contacts or deactivate it."""
    _require_own(request, signed.caller.account)
    accounts = context.accounts
    if signed.payload:
        account = await accounts.update(signed.caller, decode(signed.payload, AccountUpdate))
    else:
        account = await accounts.read(signed.caller.account)
    at = context.urls
    return answer(representations.account(account, at), location=at.account(account))


async def orders(request: Request, context: Context, signed: AccountRequest) -> web.Response:
    """List the orders of the account, page by page."""
    _require_own(request, signed.caller.account)
    require_no_payload(signed.payload)
    at = context.urls
    caller = signed.caller
    names, following = await context.orders.list_page(caller.account, request.parameters.get("cursor", ""))
    view = representations.orders([at.order(*caller.profile.key, name) for name in names])
    more = {"Link": link(at.more_orders(caller.account, following), "next")} if following else None
    return answer(view, headers=more)


async def change_key(_: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Give the account another key. The refusal of a key that is in use names its account (RFC 8555, 7.3.5)."""
    at, caller = context.urls, signed.caller
    wanted = key_rollover.parse(
        signed.payload, url=at.resource(*caller.profile.key, "key-change"), account=at.account(caller.account)
    )
    try:
        account = await context.accounts.change_key(caller, wanted.new, old=wanted.old)
    except KeyInUse as error:
        location = at.account(error.account)
        raise HTTPRefusal(
            error.type, error.detail, status=HTTPStatus.CONFLICT, headers={"Location": location}
        ) from None
    return answer(representations.account(account, at), location=at.account(account))


def _require_own(request: Request, account: ACMEAccount) -> None:
    """Raise NotFound for the URL of another account."""
    if request.parameters["account"] != account.metadata.name:
        raise NotFound


ROUTES = (
    post_by_key(urls.NEW_ACCOUNT, open_account),
    post_of_live_account(urls.ACCOUNT, read_or_update),
    post(urls.ORDERS, orders),
    post(urls.MORE_ORDERS, orders),
    post(urls.KEY_CHANGE, change_key, dormant=True),
)
