"""Problem documents (RFC 7807; RFC 8555, 6.7). Only this module knows which HTTP status belongs to which error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from aiohttp import hdrs, web

from acme_server.api.responses import answer, link
from acme_server.problems import AccountNotValid, NotFound, ProblemType, Refused
from kms.resources.orders import Identifier, StoredProblem, StoredSubProblem

URN = "urn:ietf:params:acme:error:"
MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[str, int] = MappingProxyType(
    {
        ProblemType.ALREADY_REPLACED: 409,
        ProblemType.CAA: 403,
        ProblemType.UNAUTHORIZED: 403,
        ProblemType.ORDER_NOT_READY: 403,
        ProblemType.REJECTED_IDENTIFIER: 403,
        ProblemType.EXTERNAL_ACCOUNT_REQUIRED: 403,
        ProblemType.USER_ACTION_REQUIRED: 403,
        # Not 429: cert-manager gives an order up on a 429, and waits on a 503.
        ProblemType.RATE_LIMITED: 503,
        ProblemType.SERVER_INTERNAL: 500,
    }
)
"""HTTP status by type; 400 for all others."""

_RETRY_AFTER = 2


class HTTPRefusal(Refused):
    """A refusal with a status and headers of its own."""

    def __init__(
        self, type_: ProblemType, detail: str, *, status: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(type_, detail)
        self.status = status
        self.headers = headers or {}


def status_of(refused: Refused) -> int:
    """The HTTP status of a refusal."""
    match refused:
        case HTTPRefusal():
            return refused.status
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case AccountNotValid():
            return HTTPStatus.UNAUTHORIZED
        case _:
            return STATUSES.get(refused.type, HTTPStatus.BAD_REQUEST)


def answer_refusal(refused: Refused) -> web.Response:
    """The problem document of a refusal."""
    status = status_of(refused)
    view: dict[str, Any] = {"type": URN + refused.type, "detail": refused.detail, "status": status}
    if refused.subproblems:
        view["subproblems"] = [_subproblem(each.type, each.detail, each.identifier) for each in refused.subproblems]
    return answer(view | dict(refused.members), status=status, headers=_headers(refused), media_type=MEDIA_TYPE)


def answer_unavailable(detail: str, retry_after: float | None) -> web.Response:
    """A 503 that asks the client to try again. Retry-After is in whole seconds, at least one."""
    refusal = HTTPRefusal(
        ProblemType.SERVER_INTERNAL,
        detail,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        headers={hdrs.RETRY_AFTER: str(max(1, math.ceil(_RETRY_AFTER if retry_after is None else retry_after)))},
    )
    return answer_refusal(refusal)


def malformed_http(status: int) -> web.Response:
    """The answer to what is no HTTP, or to an error outside of all handlers."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return answer_refusal(HTTPRefusal(ProblemType.SERVER_INTERNAL, "Something went wrong.", status=status))
    detail = "The request is not valid HTTP, or its headers are too long."
    return answer_refusal(HTTPRefusal(ProblemType.MALFORMED, detail, status=status))


def stored_problem(stored: StoredProblem, subproblems: Sequence[StoredSubProblem] = ()) -> dict[str, Any]:
    """The problem document of an error that an order or a challenge keeps, with these subproblems or its own."""
    view: dict[str, Any] = {
        "type": URN + stored.type,
        "detail": stored.detail,
        "status": STATUSES.get(stored.type, HTTPStatus.BAD_REQUEST),
    }
    if shown := subproblems or stored.subproblems:
        view["subproblems"] = [_subproblem(each.type, each.detail, each.identifier) for each in shown]
    return view


def _headers(refused: Refused) -> dict[str, str]:
    if isinstance(refused, HTTPRefusal):
        return dict(refused.headers)
    if refused.retry_after is not None:
        return {hdrs.RETRY_AFTER: str(refused.retry_after)}
    if refused.type == ProblemType.USER_ACTION_REQUIRED:
        return {hdrs.LINK: link(refused.members["instance"], "terms-of-service")}
    return {}


def _subproblem(type_: str, detail: str, identifier: Identifier | None) -> dict[str, Any]:
    view: dict[str, Any] = {"type": URN + type_, "detail": detail}
    if identifier is not None:
        view["identifier"] = identifier
    return view
