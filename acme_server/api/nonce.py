"""newNonce (RFC 8555, 7.2): HEAD, GET, and POST-as-GET. Costs no read and no write."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api.authentication import AccountRequest
from acme_server.api.context import Context
from acme_server.api.request import Request
from acme_server.api.responses import require_no_payload
from acme_server.api.routing import get, post


async def give(request: Request, context: Context) -> web.Response:
    """Issue a nonce: 200 for HEAD, 204 for GET."""
    status = HTTPStatus.OK if request.method == "HEAD" else HTTPStatus.NO_CONTENT
    return web.Response(status=status, headers={"Replay-Nonce": context.nonces.issue()})


async def give_to_account(_: Request, __: Context, signed: AccountRequest) -> web.Response:
    """Issue a nonce to an account: `edge` adds one to every answer to a POST."""
    require_no_payload(signed.payload)
    return web.Response(status=HTTPStatus.NO_CONTENT)


ROUTES = (get(urls.NEW_NONCE, give), post(urls.NEW_NONCE, give_to_account))
