"""newAuthz and authorizations (RFC 8555, 7.4.1, 7.5 and 7.5.2)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountHolder
from acme_server.api.context import ORDERS, URLS
from acme_server.api.payloads import AuthorizationUpdate, NewAuthorization, decode
from acme_server.api.responses import RETRY_AFTER, answer
from acme_server.api.routing import post
from acme_server.jose.decoding import malformed
from kms.resources import ACMEOrder


async def create(request: web.Request, caller: AccountHolder) -> web.Response:
    """Open an authorization before any order."""
    wanted = decode(caller.payload, NewAuthorization)
    order = await request.app[ORDERS].preauthorize(caller.profile, caller.account, wanted)
    at = request.app[URLS]
    return answer(
        representations.authorization(order, 0, at), status=HTTPStatus.CREATED, location=at.authorization(order, 0)
    )


async def read_or_deactivate(request: web.Request, caller: AccountHolder) -> web.Response:
    """Tell how an authorization stands, or give it up."""
    order, position = await authorization_of(request, caller)
    if caller.payload:
        order = await _deactivated(request, order, position, decode(caller.payload, AuthorizationUpdate))
    else:
        order = await request.app[ORDERS].settled(order, position=position)
    shown = order.status.authorizations[position]
    processing = any(each.state == "processing" for each in shown.challenges)
    view = representations.authorization(order, position, request.app[URLS])
    return answer(view, headers=RETRY_AFTER if processing else None)


async def authorization_of(request: web.Request, caller: AccountHolder) -> tuple[ACMEOrder, int]:
    """The order and the position in it that the path names, if they are the caller's. Raises not_found for others."""
    name, position = request.match_info["order"], int(request.match_info["position"])
    return await request.app[ORDERS].holding(caller.profile, caller.account, name, position), position


async def _deactivated(request: web.Request, order: ACMEOrder, position: int, update: AuthorizationUpdate) -> ACMEOrder:
    if update.status != "deactivated":
        raise malformed("The status of an authorization can only be changed to deactivated.")
    return await request.app[ORDERS].deactivate_authorization(order, position)


ROUTES = (post(urls.AUTHORIZATION, read_or_deactivate), post(urls.NEW_AUTHORIZATION, create))
