"""renewalInfo (RFC 9773, 4): public, by GET, without a request to the API server."""

from __future__ import annotations

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.context import AUTHENTICATOR, RENEWALS
from acme_server.api.responses import answer
from acme_server.api.routing import get

_CACHED = 300
"""Seconds for which caches may keep an answer at most, so that a request for early renewal acts soon."""


async def read(request: web.Request) -> web.Response:
    """Read when to renew a certificate, and when to ask again."""
    profile = request.app[AUTHENTICATOR].profile(request)
    info = request.app[RENEWALS].info(profile, request.match_info["certificate"])
    seconds = int(info.retry_after.total_seconds())
    headers = {"Retry-After": str(seconds), "Cache-Control": f"public, max-age={min(seconds, _CACHED)}"}
    return answer(representations.renewal_info(info), headers=headers)


ROUTES = (get(urls.RENEWAL_INFO, read),)
