"""revokeCert (RFC 8555, 7.6)."""

from __future__ import annotations

from aiohttp import web

from acme_server import urls
from acme_server.api.authentication import AccountHolder, KeyHolder
from acme_server.api.context import REVOCATION
from acme_server.api.payloads import Revocation, decode
from acme_server.api.routing import post_by_account_or_key


async def revoke(request: web.Request, caller: AccountHolder | KeyHolder) -> web.Response:
    """Revoke a certificate; the answer is empty."""
    wanted = decode(caller.payload, Revocation)
    await request.app[REVOCATION].revoke(caller, wanted.der(), wanted.reason)
    return web.Response()


ROUTES = (post_by_account_or_key(urls.REVOKE_CERT, revoke),)
