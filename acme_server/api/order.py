"""newOrder, orders and finalize (RFC 8555, 7.4)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountRequest
from acme_server.api.context import ORDERS, URLS
from acme_server.api.refusals import ASKED, Asked
from acme_server.api.responses import answer, require_no_payload
from acme_server.api.routing import post
from acme_server.model import Caller
from acme_server.payloads import Finalization, NewOrder, decode
from kms.resources import ACMEOrder


async def create(request: web.Request, signed: AccountRequest) -> web.Response:
    """Create an order."""
    wanted = decode(signed.payload, NewOrder)
    order = await request.app[ORDERS].create(signed.caller, wanted)
    return _answer(request, order, HTTPStatus.CREATED)


async def read(request: web.Request, signed: AccountRequest) -> web.Response:
    """Read an order."""
    order = await order_of(request, signed.caller)
    require_no_payload(signed.payload)
    return _answer(request, await request.app[ORDERS].poll(order))


async def finalize(request: web.Request, signed: AccountRequest) -> web.Response:
    """Issue the certificate of an order."""
    order = await order_of(request, signed.caller)
    request[ASKED] = Asked(order=order)
    csr = decode(signed.payload, Finalization).request()
    return _answer(request, await request.app[ORDERS].finalize(signed.caller, order, csr))


async def order_of(request: web.Request, caller: Caller, *, live: bool = False) -> ACMEOrder:
    """The order in the path. Raises NotFound unless it is the caller's."""
    return await request.app[ORDERS].get(caller, request.match_info["order"], live=live)


def _answer(request: web.Request, order: ACMEOrder, status: int = HTTPStatus.OK) -> web.Response:
    """The order with its URL, which clients poll while the order is processing."""
    at = request.app[URLS]
    is_processing = order.status.state == "processing"
    headers = {"Retry-After": str(request.app[ORDERS].retry_after(order))} if is_processing else None
    return answer(representations.order(order, at), status=status, location=at.order(order), headers=headers)


ROUTES = (post(urls.ORDER, read), post(urls.NEW_ORDER, create), post(urls.FINALIZE, finalize))
