"""newAuthz and authorizations (RFC 8555, 7.4.1, 7.5 and 7.5.2)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server import urls
from acme_server.api import representations
from acme_server.api.authentication import AccountRequest
from acme_server.api.context import Context
from acme_server.api.request import Request
from acme_server.api.responses import RETRY_AFTER, answer
from acme_server.api.routing import post, post_of_live_account
from acme_server.jose.decoding import malformed
from acme_server.model import Caller
from acme_server.payloads import AuthorizationUpdate, NewAuthorization, decode
from kms.resources import ACMEOrder


async def create(_: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Create an authorization before any order."""
    wanted = decode(signed.payload, NewAuthorization)
    order = await context.orders.preauthorize(signed.caller, wanted)
    at = context.urls
    return answer(
        representations.authorization(order, 0, at), status=HTTPStatus.CREATED, location=at.authorization(order, 0)
    )


async def read_or_deactivate(request: Request, context: Context, signed: AccountRequest) -> web.Response:
    """Read an authorization, or deactivate it."""
    order, position = await authorization_of(request, context, signed.caller)
    if signed.payload:
        _require_deactivation(decode(signed.payload, AuthorizationUpdate))
        order = await context.orders.deactivate_authorization(order, position)
    else:
        order = await context.orders.poll(order, position=position)
    shown = order.status.authorizations[position]
    processing = any(each.state == "processing" for each in shown.challenges)
    view = representations.authorization(order, position, context.urls)
    return answer(view, headers=RETRY_AFTER if processing else None)


async def authorization_of(request: Request, context: Context, caller: Caller) -> tuple[ACMEOrder, int]:
    """The order and the position in the path. Raises NotFound unless they are the caller's."""
    name, position = request.parameters["order"], int(request.parameters["position"])
    return await context.orders.get_with_authorization(caller, name, position), position


def _require_deactivation(update: AuthorizationUpdate) -> None:
    if update.status != "deactivated":
        raise malformed("The status of an authorization can only be changed to deactivated.")


ROUTES = (post_of_live_account(urls.AUTHORIZATION, read_or_deactivate), post(urls.NEW_AUTHORIZATION, create))
