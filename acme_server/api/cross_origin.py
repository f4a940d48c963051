"""Clients in browsers (RFC 8555, 6.1; the Fetch standard): the resources of a directory may be read by every origin.

ACME requests carry no cookies and no other credentials of the browser: whoever signs has the key. So there is nothing
that an origin could use in the name of its visitor, and credentials stay forbidden. Nothing outside of directories is
opened: not the landing page, not revocation lists, and neither of the other two ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import hdrs, web

from acme_server.api.request import Request

READABLE: Mapping[str, str] = MappingProxyType(
    {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: "Link, Location, Replay-Nonce, Retry-After",
    }
)
"""Headers that let every origin read an answer and the headers that ACME uses."""

_PREFLIGHT_SECONDS = 7200
"""How long browsers may remember the answer to a preflight; Chromium remembers none longer."""


def preflight(request: Request, methods: Iterable[str]) -> web.Response | None:
    """The answer to a preflight for an ACME resource that takes these methods; None: it is no such request.

    It allows one request header, the media type of signed requests, which is the only one that ACME needs.
    """
    if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
        return None
    return web.Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(sorted(methods)),
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: hdrs.CONTENT_TYPE,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(_PREFLIGHT_SECONDS),
        },
    )
