"""Challenges (RFC 8555, 7.5.1)."""

from __future__ import annotations

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountHolder
from acme_server.api.authorization import authorization_of
from acme_server.api.context import ORDERS, URLS
from acme_server.api.payloads import ChallengeResponse, decode
from acme_server.api.responses import RETRY_AFTER, answer, link
from acme_server.api.routing import post
from acme_server.problems import NotFound


async def respond_or_read(request: web.Request, caller: AccountHolder) -> web.Response:
    """Begin the validation of a challenge (an object), or tell how it stands (an empty payload).

    A response to a challenge that is under way or settled changes nothing and is answered alike.
    """
    order, position = await authorization_of(request, caller)
    type_ = request.match_info["type"]
    if caller.payload:
        decode(caller.payload, ChallengeResponse)
        order = await request.app[ORDERS].respond(order, position, type_)
    else:
        order = await request.app[ORDERS].settled(order, position=position)
    at = request.app[URLS]
    view = representations.challenge(order, position, type_, at)
    if view is None:
        raise NotFound
    headers = {"Link": link(at.authorization(order, position), "up")}
    return answer(view, headers=headers | RETRY_AFTER if view["status"] == "processing" else headers)


ROUTES = (post(urls.CHALLENGE, respond_or_read),)
