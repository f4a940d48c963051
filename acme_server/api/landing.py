"""The page at `/`, for people who open the server's address in a browser."""

from __future__ import annotations

from aiohttp import web

from acme_server.api import markup
from acme_server.api.context import Context
from acme_server.api.request import Request
from acme_server.api.routing import get

_SECONDS = 10


async def read(_: Request, context: Context) -> web.Response:
    """Describe this server to people."""
    return markup.answer(context.pages.landing(), seconds=_SECONDS)


ROUTES = (get("/", read),)
