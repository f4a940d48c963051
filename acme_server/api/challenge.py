"""Challenges (RFC 8555, 7.5.1)."""

from __future__ import annotations

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountRequest
from acme_server.api.authorization import authorization_of
from acme_server.api.context import Context
from acme_server.api.request import Request
from acme_server.api.responses import RETRY_AFTER, answer, link
from acme_server.api.routing import post
from acme_server.payloads import ChallengeResponse, decode
from acme_server.problems import NotFound


async def respond_or_read(request: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Start the validation of a challenge (an object as payload), or read the challenge (an empty payload)."""
    order, position = await authorization_of(request, context, signed.caller)
    type_ = request.parameters["type"]
    if signed.payload:
        decode(signed.payload, ChallengeResponse)
        order = await context.orders.respond(signed.caller, order, position, type_)
    else:
        order = await context.orders.poll(order, position=position)
    at = context.urls
    view = representations.challenge(order, position, type_, at)
    if view is None:
        raise NotFound
    headers = {"Link": link(at.authorization(order, position), "up")}
    return answer(view, headers=headers | RETRY_AFTER if view["status"] == "processing" else headers)


ROUTES = (post(urls.CHALLENGE, respond_or_read),)
