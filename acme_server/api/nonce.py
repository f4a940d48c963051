"""newNonce (RFC 8555, 7.2): HEAD, GET, and POST-as-GET. It reads nothing and writes nothing."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api.authentication import AccountHolder
from acme_server.api.context import NONCES
from acme_server.api.responses import require_no_payload
from acme_server.api.routing import get, post


async def give(request: web.Request) -> web.Response:
    """Give anybody a nonce: 200 for HEAD, 204 for GET."""
    status = HTTPStatus.OK if request.method == "HEAD" else HTTPStatus.NO_CONTENT
    return web.Response(status=status, headers={"Replay-Nonce": request.app[NONCES].issue()})


async def give_to_account(_: web.Request, caller: AccountHolder) -> web.Response:
    """Give an account a nonce; every answer to a POST carries one."""
    require_no_payload(caller.payload)
    return web.Response(status=HTTPStatus.NO_CONTENT)


ROUTES = (get(urls.NEW_NONCE, give), post(urls.NEW_NONCE, give_to_account))
