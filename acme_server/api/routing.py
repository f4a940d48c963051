"""Routes and their authentication: handlers receive requests that are already authenticated."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from aiohttp import web

from acme_server.api.authentication import AccountRequest, KeyRequest
from acme_server.api.context import AUTHENTICATOR

Handler = Callable[[web.Request], Awaitable[web.Response]]


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


def post_by_key(path: str, handler: Callable[[web.Request, KeyRequest], Awaitable[web.Response]]) -> Route:
    """A resource for requests with a `jwk`, also of a profile that is dormant: its service decides."""

    async def authenticated(request: web.Request) -> web.Response:
        return await handler(request, await request.app[AUTHENTICATOR].key_request(request))

    return Route("POST", path, Access.KEY, authenticated)


def post(
    path: str, handler: Callable[[web.Request, AccountRequest], Awaitable[web.Response]], *, dormant: bool = False
) -> Route:
    """A resource for accounts. One that is suspended, or has lost its credential, may only read it.

    It can always be read; if it is `dormant`, a profile that is not ready takes changes, too.
    """

    async def authenticated(request: web.Request) -> web.Response:
        signed = await request.app[AUTHENTICATOR].active_account_request(request, dormant=dormant)
        return await handler(request, signed)

    return Route("POST", path, Access.ACCOUNT, authenticated)


def post_of_live_account(path: str, handler: Callable[[web.Request, AccountRequest], Awaitable[web.Response]]) -> Route:
    """A resource for accounts; its service decides what one may do that is suspended or has lost its credential.

    A dormant profile has it, too.
    """

    async def authenticated(request: web.Request) -> web.Response:
        return await handler(request, await request.app[AUTHENTICATOR].account_request(request))

    return Route("POST", path, Access.ACCOUNT, authenticated)


def post_by_account_or_key(
    path: str, handler: Callable[[web.Request, AccountRequest | KeyRequest], Awaitable[web.Response]]
) -> Route:
    """A resource for both (revokeCert). Its service decides as in `post_of_live_account`."""

    async def authenticated(request: web.Request) -> web.Response:
        return await handler(request, await request.app[AUTHENTICATOR].account_or_key_request(request))

    return Route("POST", path, Access.ACCOUNT_OR_KEY, authenticated)


class ByShape(web.PlainResource):
    """The resources below a path, looked up by what all of their paths have in common beside names.

    aiohttp's router would match their regular expressions one after the other.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._resources: dict[_Shape, list[_Resource]] = {}

    def add(self, path: str, handlers: Iterable[tuple[str, Handler]]) -> None:
        """Add a resource whose path begins with this one, with the handler of each method.

        Its names need no escapes in URLs. Raises RuntimeError for a method that it has already.
        """
        resource = web.DynamicResource(path)
        routes = {method: resource.add_route(method, handler) for method, handler in handlers}
        found = _Resource(resource.get_info()["pattern"], routes)
        self._resources.setdefault(_shape(resource.canonical), []).append(found)

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        """The route of a request; without one, the methods that its resource has."""
        path, allowed = request.rel_url.path_safe, set[str]()
        for each in self._resources.get(_shape(path), ()):
            match = each.pattern.fullmatch(path)
            if match is not None:
                route = each.routes.get(request.method)
                if route is not None:
                    return web.UrlMappingMatchInfo(match.groupdict(), route), allowed
                allowed.update(each.routes)
        return None, allowed

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[web.ResourceRoute]:
        return (route for found in self._resources.values() for each in found for route in each.routes.values())


class _Resource(NamedTuple):
    pattern: re.Pattern[str]
    routes: Mapping[str, web.ResourceRoute]


_Shape = tuple[int, tuple[str, ...]]
_FIRST, _STEP = 4, 2


def _shape(path: str) -> _Shape:
    """The number of segments, and those that are words: `/acme/{namespace}/{profile}/orders/{order}/finalize`."""
    segments = path.split("/")
    return len(segments), tuple(segments[_FIRST::_STEP])
