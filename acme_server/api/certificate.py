"""Certificates and their chains (RFC 8555, 7.4.2)."""

from __future__ import annotations

from aiohttp import hdrs, web

from acme_server import urls
from acme_server.api.authentication import AccountRequest
from acme_server.api.context import Context
from acme_server.api.order import order_of
from acme_server.api.request import Request
from acme_server.api.responses import link, require_no_payload
from acme_server.api.routing import post
from acme_server.certificates.chains import chains
from acme_server.problems import NotFound

MEDIA_TYPE = "application/pem-certificate-chain"


async def read(request: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Read a chain of the certificate, with links to the others."""
    order = await order_of(request, context, signed.caller)
    require_no_payload(signed.payload)
    if order.status.certificate is None:
        # Another replica may have issued it a moment ago.
        order = await order_of(request, context, signed.caller, live=True)
    default = await context.chains.complete(order)
    if default is None:
        raise NotFound
    found = chains(order, default, context.profiles.authority(signed.caller.profile, order))
    chosen = int(request.parameters.get("chain", 0))
    if chosen >= len(found):
        raise NotFound
    response = web.Response(body=found[chosen].encode(), headers={hdrs.CONTENT_TYPE: MEDIA_TYPE})
    at = context.urls
    for number in range(len(found)):
        if number != chosen:
            response.headers.add(hdrs.LINK, link(at.chain(order, number), "alternate"))
    return response


ROUTES = (post(urls.CERTIFICATE, read), post(urls.ALTERNATE, read))
