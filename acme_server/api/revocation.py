"""revokeCert (RFC 8555, 7.6)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api.authentication import AccountRequest, KeyRequest
from acme_server.api.context import Context
from acme_server.api.problems import HTTPRefusal
from acme_server.api.request import Asked, Request
from acme_server.api.routing import post_by_account_or_key
from acme_server.certificates.propagation import NotTaken
from acme_server.payloads import Revocation, decode


async def revoke(request: Request, context: Context, signed: AccountRequest | KeyRequest) -> web.Response:
    """Revoke a certificate."""
    wanted = decode(signed.payload, Revocation)
    caller = signed.caller if isinstance(signed, AccountRequest) else signed.holder
    der = wanted.der()
    request.asked = Asked(certificate=der)
    try:
        await context.revocations.revoke(caller, der, wanted.reason)
    except NotTaken as refused:
        raise HTTPRefusal(refused.type, refused.detail, status=HTTPStatus.NOT_IMPLEMENTED) from None
    return web.Response()


ROUTES = (post_by_account_or_key(urls.REVOKE_CERT, revoke),)
