"""renewalInfo (RFC 9773, 4): public, by GET, without a request to the API server."""

from __future__ import annotations

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.context import Context
from acme_server.api.request import Request
from acme_server.api.responses import answer
from acme_server.api.routing import get

_CACHED = 300
"""Seconds for which caches may keep an answer at most, so that a request for early renewal acts soon."""


async def read(request: Request, context: Context) -> web.Response:
    """Read when to renew a certificate, and when to ask again."""
    profile = context.authenticator.profile(request)
    info = context.renewals.info(profile, request.parameters["certificate"])
    seconds = int(info.retry_after.total_seconds())
    headers = {"Retry-After": str(seconds), "Cache-Control": f"public, max-age={min(seconds, _CACHED)}"}
    return answer(representations.renewal_info(info), headers=headers)


ROUTES = (get(urls.RENEWAL_INFO, read),)
