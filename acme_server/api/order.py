"""newOrder, orders and finalize (RFC 8555, 7.4)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountRequest
from acme_server.api.context import Context
from acme_server.api.request import Asked, Request
from acme_server.api.responses import answer, require_no_payload
from acme_server.api.routing import post
from acme_server.model import Caller
from acme_server.payloads import Finalization, NewOrder, decode
from kms.resources import ACMEOrder


async def create(_: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Create an order."""
    wanted = decode(signed.payload, NewOrder)
    order = await context.orders.create(signed.caller, wanted)
    return _answer(context, order, HTTPStatus.CREATED)


async def read(request: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Read an order."""
    order = await order_of(request, context, signed.caller)
    require_no_payload(signed.payload)
    return _answer(context, await context.orders.poll(order))


async def finalize(request: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Issue the certificate of an order."""
    order = await order_of(request, context, signed.caller)
    request.asked = Asked(order=order)
    csr = decode(signed.payload, Finalization).request()
    return _answer(context, await context.orders.finalize(signed.caller, order, csr))


async def order_of(request: Request, context: Context, caller: Caller, *, live: bool = False) -> ACMEOrder:
    """The order in the path. Raises NotFound unless it is the caller's."""
    return await context.orders.get(caller, request.parameters["order"], live=live)


def _answer(context: Context, order: ACMEOrder, status: int = HTTPStatus.OK) -> web.Response:
    """The order with its URL, which clients poll while the order is processing."""
    at = context.urls.of_order(order)
    is_processing = order.status.state == "processing"
    headers = {"Retry-After": str(context.orders.retry_after(order))} if is_processing else None
    return answer(representations.order(order, at), status=status, location=at.order, headers=headers)


ROUTES = (post(urls.ORDER, read), post(urls.NEW_ORDER, create), post(urls.FINALIZE, finalize))
