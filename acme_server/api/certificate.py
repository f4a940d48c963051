"""Certificates (RFC 8555, 7.4.2)."""

from __future__ import annotations

from aiohttp import web

from acme_server import links
from acme_server.api.answers import require_no_payload
from acme_server.api.order import order_of
from acme_server.api.routing import post
from acme_server.authentication import AccountHolder
from acme_server.problems import not_found

MEDIA_TYPE = "application/pem-certificate-chain"


async def read(request: web.Request, caller: AccountHolder) -> web.Response:
    """Hand out the chain of an order that is valid (M123, M152)."""
    order = await order_of(request, caller)
    require_no_payload(caller.payload)
    if order.status.certificate is None:
        order = await order_of(request, caller, fresh=True)  # another replica may have issued it a moment ago
    if order.status.certificate is None:
        raise not_found()
    return web.Response(body=order.status.certificate.encode(), headers={"Content-Type": MEDIA_TYPE})


ROUTES = (post(links.CERTIFICATE, read),)
