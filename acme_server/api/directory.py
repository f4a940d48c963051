"""The directory (RFC 8555, 7.1.1): by GET, and by POST-as-GET. Browsers get a page for people instead."""

from __future__ import annotations

import re

from aiohttp import hdrs, web

from acme_server import urls
from acme_server.api import markup, representations
from acme_server.api.authentication import AccountRequest
from acme_server.api.context import Context
from acme_server.api.request import Request
from acme_server.api.responses import answer, require_no_payload
from acme_server.api.routing import get, post
from acme_server.model import Profile

_PAGE_SECONDS = 60
_RANGE = re.compile(r"\s*([^;\s]+)\s*(?:;[^,]*?q=([0-9.]+))?[^,]*")


async def read(request: Request, context: Context) -> web.Response:
    """Read the directory, or its page."""
    profile = context.authenticator.profile(request)
    if wants_page(request.headers.get(hdrs.ACCEPT, "")):
        return markup.answer(context.pages.of_profile(profile), seconds=_PAGE_SECONDS)
    return _directory(context, profile)


async def read_as_account(_: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Read the directory as an account."""
    require_no_payload(signed.payload)
    return _directory(context, signed.caller.profile)


def _directory(context: Context, profile: Profile) -> web.Response:
    view = representations.directory(profile, context.profiles.order_profiles(profile), context.urls)
    return answer(view, headers={hdrs.VARY: hdrs.ACCEPT})


def wants_page(accept: str) -> bool:
    """Whether the Accept header is that of a browser: it names HTML, and prefers it to JSON.

    Programs that say nothing, or that take everything, get JSON. Java's HttpURLConnection asks for HTML and pictures,
    whatever its program wants.
    """
    wanted = {found[1].lower(): _quality(found[2]) for each in accept.split(",") if (found := _RANGE.match(each))}
    page = max(wanted.get("text/html", 0.0), wanted.get("application/xhtml+xml", 0.0))
    if "image/gif" in wanted and "application/xhtml+xml" not in wanted:
        return False
    return page > 0 and page >= wanted.get("application/json", 0.0) and not _lists_json_first(accept)


def _quality(text: str | None) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0


def _lists_json_first(accept: str) -> bool:
    json = accept.find("application/json")
    return 0 <= json < accept.find("text/html")


ROUTES = (get(urls.DIRECTORY, read), get(urls.DIRECTORY_PAGE, read), post(urls.DIRECTORY, read_as_account))
