"""Challenges (RFC 8555, 7.5.1)."""

from __future__ import annotations

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountRequest
from acme_server.api.authorization import authorization_of
from acme_server.api.context import ORDERS, URLS
from acme_server.api.responses import RETRY_AFTER, answer, link
from acme_server.api.routing import post
from acme_server.payloads import ChallengeResponse, decode
from acme_server.problems import NotFound


async def respond_or_read(request: web.Request, signed: AccountRequest) -> web.Response:
    """Start the validation of a challenge (an object as payload), or read the challenge (an empty payload)."""
    order, position = await authorization_of(request, signed.caller)
    type_ = request.match_info["type"]
    if signed.payload:
        decode(signed.payload, ChallengeResponse)
        order = await request.app[ORDERS].respond(signed.caller, order, position, type_)
    else:
        order = await request.app[ORDERS].poll(order, position=position)
    at = request.app[URLS]
    view = representations.challenge(order, position, type_, at)
    if view is None:
        raise NotFound
    headers = {"Link": link(at.authorization(order, position), "up")}
    return answer(view, headers=headers | RETRY_AFTER if view["status"] == "processing" else headers)


ROUTES = (post(urls.CHALLENGE, respond_or_read),)
