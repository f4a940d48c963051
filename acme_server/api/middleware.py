"""What every answer has in common: the one place where errors become problem documents and requests become log lines.

An answer to a POST, error or not, carries a new nonce and the way to the directory. What is not an
error that we expect is answered as serverInternal without details; what it was stands in the log.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import hdrs, web

from acme_server.api import representations
from acme_server.api.authentication import ACCOUNT_NAME
from acme_server.api.context import METRICS, NONCES, READINESS, URLS
from acme_server.api.listener import SILENT
from acme_server.api.responses import link, problem_document
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.cluster import errors

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SERVER_ERROR = 500
_RETRY_AFTER = 2


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request, whatever happens."""
    return await _answered(request, handler, _complete)


@web.middleware
async def plain_edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request that came without TLS, whatever happens: nothing of ACME, so no nonces and no directory."""
    return await _answered(request, handler, _name_server)


async def _answered(
    request: web.Request, handler: Handler, complete: Callable[[web.Request, web.StreamResponse], None]
) -> web.StreamResponse:
    loop = asyncio.get_running_loop()
    started = loop.time()
    request.app[SILENT].discard(request.protocol)
    try:
        response = await handler(request)
    except Exception as error:  # noqa: BLE001 - nothing may leave this server as a stack trace or a dropped connection
        response = _answer_to(error, request)
    complete(request, response)
    if request.app[READINESS].shutting_down:
        response.force_close()  # the next request of this client is for another replica
    _record(request, response, loop.time() - started)
    return response


def _answer_to(error: Exception, request: web.Request) -> web.Response:
    """The problem document of an error."""
    match error:
        case Refused():
            _log_refusal(error, request)
            return problem_document(representations.problem(error), headers=dict(error.headers))
        case Unavailable():
            return _unavailable(error.detail, error.retry_after)
        case errors.Unavailable():
            logger.warning("API server unavailable", extra={"error": str(error)})
            return _unavailable("The Kubernetes API server cannot be reached now.", error.retry_after)
        case web.HTTPException():
            return _of_http(error)
        case _:
            logger.error("unexpected error", exc_info=error, extra={"route": _route(request)})
            return problem_document(
                representations.problem(Refused(ProblemType.SERVER_INTERNAL, "Something went wrong in the server."))
            )


def _unavailable(detail: str, retry_after: float | None) -> web.Response:
    """503: come again. Retry-After is whole seconds, at least one."""
    refused = Refused(ProblemType.SERVER_INTERNAL, detail, status=HTTPStatus.SERVICE_UNAVAILABLE)
    seconds = max(1, math.ceil(_RETRY_AFTER if retry_after is None else retry_after))
    return problem_document(representations.problem(refused), headers={hdrs.RETRY_AFTER: str(seconds)})


def _of_http(error: web.HTTPException) -> web.Response:
    """What aiohttp refuses by itself: no such path, no such method there, too long a body."""
    if error.status >= _SERVER_ERROR:
        return problem_document(
            representations.problem(Refused(ProblemType.SERVER_INTERNAL, error.reason, status=error.status))
        )
    details = {
        HTTPStatus.NOT_FOUND: "There is no such resource.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This resource does not take that method; ACME reads with POST-as-GET.",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too long.",
    }
    detail = details.get(HTTPStatus(error.status), error.reason)
    allow = error.headers.get(hdrs.ALLOW)
    return problem_document(
        representations.problem(Refused(ProblemType.MALFORMED, detail, status=error.status)),
        headers={hdrs.ALLOW: allow} if allow else None,
    )


def _complete(request: web.Request, response: web.StreamResponse) -> None:
    """Add what every answer has, and what every answer under a directory has."""
    _name_server(request, response)
    headers = response.headers
    index = request.app[URLS].directory_of(request.raw_path)
    if index is None:
        return
    if request.method == hdrs.METH_POST and request.app[NONCES].ready:
        headers["Replay-Nonce"] = request.app[NONCES].issue()
    # Nonces and resources of accounts are for one reader and one time.
    if request.method == hdrs.METH_POST or "Replay-Nonce" in headers:
        headers[hdrs.CACHE_CONTROL] = "no-store"
    headers.add(hdrs.LINK, link(index, "index"))


def _name_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = "kms-acme"  # else aiohttp would tell its version, and with it what to try


def _record(request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    """One log line and one observation a request: the route's template, never the path itself."""
    route = _route(request)
    request.app[METRICS].count_request(route, request.method, response.status, seconds)
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "request",
            extra={
                "method": request.method,
                "route": route,
                "status": response.status,
                "ms": round(seconds * 1000, 1),
                "account": request.get(ACCOUNT_NAME),
                "client": request.remote,
            },
        )


def _log_refusal(refused: Refused, request: web.Request) -> None:
    """Say what was refused and why; what the client must not learn is not in a Refused either."""
    logger.info(
        "request refused",
        extra={
            "outcome": refused.type.value,
            "detail": refused.detail,
            "identifiers": [each.identifier.value for each in refused.subproblems if each.identifier] or None,
            "profile": "/".join(request.match_info.get(name, "") for name in ("namespace", "profile")),
            "account": request.get(ACCOUNT_NAME),
            "route": _route(request),
        },
    )


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"
