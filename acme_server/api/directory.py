"""The directory (RFC 8555, 7.1.1): by GET, and by POST-as-GET."""

from __future__ import annotations

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountRequest
from acme_server.api.context import AUTHENTICATOR, PROFILES, URLS
from acme_server.api.responses import answer, require_no_payload
from acme_server.api.routing import get, post
from acme_server.model import Profile


async def read(request: web.Request) -> web.Response:
    """Read the directory."""
    return _directory(request, request.app[AUTHENTICATOR].profile(request))


async def read_as_account(request: web.Request, signed: AccountRequest) -> web.Response:
    """Read the directory as an account."""
    require_no_payload(signed.payload)
    return _directory(request, signed.caller.profile)


def _directory(request: web.Request, profile: Profile) -> web.Response:
    return answer(representations.directory(profile, request.app[PROFILES].order_profiles(profile), request.app[URLS]))


ROUTES = (get(urls.DIRECTORY, read), post(urls.DIRECTORY, read_as_account))
