"""Routes and their authentication: handlers receive requests that are already authenticated. The router finds them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from aiohttp import web

from acme_server.api.authentication import AccountRequest, KeyRequest
from acme_server.api.context import Context
from acme_server.api.request import Request
from kms.contract import ACME_PATH

Handler = Callable[[Request, Context], Awaitable[web.Response]]


class Access(Enum):
    """How the requests to a route are authenticated."""

    PUBLIC = "not at all"
    KEY = "by the key in the request"
    ACCOUNT = "by an account of the profile"
    ACCOUNT_OR_KEY = "by an account of the profile or by the key in the request"


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, the authentication of requests, and their handler."""

    method: str
    path: str
    access: Access
    handler: Handler


def get(path: str, handler: Handler) -> Route:
    """A public resource, with GET and HEAD."""
    return Route("GET", path, Access.PUBLIC, handler)


def post_by_key(path: str, handler: Callable[[Request, Context, KeyRequest], Awaitable[web.Response]]) -> Route:
    """A resource for requests with a `jwk`, also of a profile that is dormant: its service decides."""

    async def authenticated(request: Request, context: Context) -> web.Response:
        return await handler(request, context, await context.authenticator.key_request(request))

    return Route("POST", path, Access.KEY, authenticated)


def post(
    path: str, handler: Callable[[Request, Context, AccountRequest], Awaitable[web.Response]], *, dormant: bool = False
) -> Route:
    """A resource for accounts. One that is suspended, or has lost its credential, may only read it.

    It can always be read; if it is `dormant`, a profile that is not ready takes changes, too.
    """

    async def authenticated(request: Request, context: Context) -> web.Response:
        signed = await context.authenticator.active_account_request(request, dormant=dormant)
        return await handler(request, context, signed)

    return Route("POST", path, Access.ACCOUNT, authenticated)


def post_of_live_account(
    path: str, handler: Callable[[Request, Context, AccountRequest], Awaitable[web.Response]]
) -> Route:
    """A resource for accounts; its service decides what one may do that is suspended or has lost its credential.

    A dormant profile has it, too.
    """

    async def authenticated(request: Request, context: Context) -> web.Response:
        return await handler(request, context, await context.authenticator.account_request(request))

    return Route("POST", path, Access.ACCOUNT, authenticated)


def post_by_account_or_key(
    path: str, handler: Callable[[Request, Context, AccountRequest | KeyRequest], Awaitable[web.Response]]
) -> Route:
    """A resource for both (revokeCert). Its service decides as in `post_of_live_account`."""

    async def authenticated(request: Request, context: Context) -> web.Response:
        return await handler(request, context, await context.authenticator.account_or_key_request(request))

    return Route("POST", path, Access.ACCOUNT_OR_KEY, authenticated)


@dataclass(frozen=True, slots=True)
class _Resource:
    """What the routes of one path have in common: its template without patterns, its pattern, and their handlers."""

    template: str
    pattern: re.Pattern[str]
    handlers: dict[str, Handler] = field(default_factory=dict)
    """By method."""


class Router:
    """Finds the handler of a request by what all of its paths have in common beside names.

    aiohttp's router would match regular expressions one after the other.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        """Names in paths need no escapes in URLs. What takes GET takes HEAD, too.

        Raises ValueError for a second route with the same path and method.
        """
        resources: dict[str, _Resource] = {}
        self._resources: dict[_Shape, list[_Resource]] = {}
        for route in routes:
            resource = resources.get(route.path)
            if resource is None:
                parsed = web.DynamicResource(route.path)
                resource = _Resource(parsed.canonical, parsed.get_info()["pattern"])
                resources[route.path] = resource
                self._resources.setdefault(_shape(resource.template), []).append(resource)
            if route.method in resource.handlers:
                raise ValueError(f"{route.method} {route.path} has a route already")
            resource.handlers[route.method] = route.handler
            if route.method == "GET":
                resource.handlers["HEAD"] = route.handler

    def handler(self, request: Request) -> Handler:
        """The handler of a request, which gets its route and the names in its path.

        Raises HTTPNotFound and HTTPMethodNotAllowed.
        """
        path = request.rel_url.path_safe
        for resource in self._resources.get(_shape(path), ()):
            if (match := resource.pattern.fullmatch(path)) is not None:
                handler = resource.handlers.get(request.method)
                if handler is None:
                    raise web.HTTPMethodNotAllowed(request.method, resource.handlers)
                request.route, request.parameters = resource.template, match.groupdict()
                return handler
        raise web.HTTPNotFound


_Shape = tuple[int, tuple[str, ...]]
_FIRST, _STEP = 4, 2


def _shape(path: str) -> _Shape:
    """The number of segments, and those that are words: `/acme/{namespace}/{profile}/orders/{order}/finalize`."""
    segments = path.split("/")
    words = segments[_FIRST::_STEP] if path.startswith(_DIRECTORIES) else segments[1:2]
    return len(segments), tuple(words)


_DIRECTORIES = f"{ACME_PATH}/"
