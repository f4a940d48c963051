"""JSON answers, their headers, and the check of POST-as-GET."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from acme_server.jose.decoding import malformed

RETRY_AFTER = {"Retry-After": "1"}
"""Sent while something is processing. Whole seconds: not every client reads dates."""

_encode = msgspec.json.Encoder().encode


def answer(
    view: dict[str, Any],
    *,
    status: int = 200,
    location: str | None = None,
    headers: dict[str, str] | None = None,
    media_type: str = "application/json",
) -> web.Response:
    """`view` as a JSON document."""
    sent = {"Content-Type": media_type} | (headers or {})
    if location is not None:
        sent["Location"] = location
    return web.Response(body=_encode(view), status=status, headers=sent)


def link(url: str, relation: str) -> str:
    """The value of a Link header (RFC 8288)."""
    return f'<{url}>;rel="{relation}"'


def require_no_payload(payload: bytes) -> None:
    """Raise Refused (malformed) unless a request is POST-as-GET: the empty payload, not the empty object."""
    if payload:
        raise malformed("This resource can only be read: the payload must be empty.")
