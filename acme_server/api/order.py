"""newOrder, orders and finalize (RFC 8555, 7.4)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountHolder
from acme_server.api.context import ORDERS, URLS
from acme_server.api.payloads import Finalization, NewOrder, decode
from acme_server.api.responses import RETRY_AFTER, answer, require_no_payload
from acme_server.api.routing import post
from kms.resources import ACMEOrder


async def create(request: web.Request, caller: AccountHolder) -> web.Response:
    """Open an order."""
    wanted = decode(caller.payload, NewOrder)
    order = await request.app[ORDERS].create(caller.profile, caller.account, wanted)
    return _answer(request, order, HTTPStatus.CREATED)


async def read(request: web.Request, caller: AccountHolder) -> web.Response:
    """Tell how an order stands."""
    order = await order_of(request, caller)
    require_no_payload(caller.payload)
    return _answer(request, await request.app[ORDERS].settled(order))


async def finalize(request: web.Request, caller: AccountHolder) -> web.Response:
    """Issue the certificate of an order."""
    order = await order_of(request, caller)
    csr = decode(caller.payload, Finalization).request()
    return _answer(request, await request.app[ORDERS].finalize(caller.profile, caller.account, order, csr))


async def order_of(request: web.Request, caller: AccountHolder, *, fresh: bool = False) -> ACMEOrder:
    """The order that the path names, if it is one and the caller's. Raises not_found for any other."""
    return await request.app[ORDERS].get(caller.profile, caller.account, request.match_info["order"], fresh=fresh)


def _answer(request: web.Request, order: ACMEOrder, status: int = HTTPStatus.OK) -> web.Response:
    """The order, always with its URL: clients poll the one that finalize tells, while it is processing."""
    at = request.app[URLS]
    headers = RETRY_AFTER if order.status.state == "processing" else None
    return answer(representations.order(order, at), status=status, location=at.order(order), headers=headers)


ROUTES = (post(urls.ORDER, read), post(urls.NEW_ORDER, create), post(urls.FINALIZE, finalize))
