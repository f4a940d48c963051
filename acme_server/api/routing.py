"""How a route says who may use it. A handler that needs a sender is given one and cannot forget to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from aiohttp import web

from acme_server.api.authentication import AccountHolder, KeyHolder
from acme_server.api.context import AUTHENTICATOR

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Access(Enum):
    """Who may use a route: the one authentication mode that it has."""

    ANYBODY = "anybody"
    KEY = "whoever holds the key in the request"
    ACCOUNT = "an account of the profile"
    ACCOUNT_OR_KEY = "an account of the profile, or whoever holds the key in the request"


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, who may use them, and what answers."""

    method: str
    path: str
    access: Access
    handler: Handler


def get(path: str, handler: Handler) -> Route:
    """A resource that anybody may read (with HEAD too)."""
    return Route("GET", path, Access.ANYBODY, handler)


def post_by_key(path: str, handler: Callable[[web.Request, KeyHolder], Awaitable[web.Response]]) -> Route:
    """A resource for requests that bring their key along."""

    async def authenticated(request: web.Request) -> web.Response:
        return await handler(request, await request.app[AUTHENTICATOR].key_holder(request))

    return Route("POST", path, Access.KEY, authenticated)


def post(path: str, handler: Callable[[web.Request, AccountHolder], Awaitable[web.Response]]) -> Route:
    """A resource for accounts: all but newAccount and revokeCert. GET is not allowed on it."""

    async def authenticated(request: web.Request) -> web.Response:
        return await handler(request, await request.app[AUTHENTICATOR].account_holder(request))

    return Route("POST", path, Access.ACCOUNT, authenticated)


def post_by_account_or_key(
    path: str, handler: Callable[[web.Request, AccountHolder | KeyHolder], Awaitable[web.Response]]
) -> Route:
    """A resource for accounts and for those who prove something else with a key: revokeCert alone."""

    async def authenticated(request: web.Request) -> web.Response:
        return await handler(request, await request.app[AUTHENTICATOR].account_or_key_holder(request))

    return Route("POST", path, Access.ACCOUNT_OR_KEY, authenticated)
