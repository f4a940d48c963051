"""Common to all answers: errors become problem documents, requests become log lines and metrics.

Every answer to a POST carries a new nonce and a link to the directory. Unexpected errors are answered as serverInternal
without details, and logged in full.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus

from aiohttp import hdrs, web

from acme_server.api import cross_origin, refusals
from acme_server.api.authentication import ACCOUNT_NAME
from acme_server.api.context import AUDIT, METRICS, NONCES, ON_REFUSED, URLS
from acme_server.api.health import READINESS
from acme_server.api.problems import HTTPRefusal, answer_refusal, answer_unavailable
from acme_server.api.responses import link
from acme_server.audit.actor import ACTOR, Actor
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.sessions import SESSION, Session
from kms.cluster import errors
from kms.logs import log_often

logger = logging.getLogger(__name__)

_REFUSED = 30
"""Retry-After of what a person has to allow first, in seconds."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request to the ACME application, also after an error."""
    ACTOR.set(Actor(request.remote))
    SESSION.set(session := Session())
    application = request.app
    directory = application[URLS].directory_of(request.raw_path)
    asked = cross_origin.preflight(request) if directory is not None else None
    response = await _answer(request, handler, application) if asked is None else asked
    if directory is not None:
        _add_acme_headers(request, response, directory, application[NONCES], session)
    return response


@web.middleware
async def plain_edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request that came without TLS, also after an error. No nonce and no directory: ACME needs TLS."""
    return await _answer(request, handler, request.app)


async def _answer(request: web.Request, handler: Handler, application: web.Application) -> web.StreamResponse:
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        response = await handler(request)
    except Exception as error:  # noqa: BLE001 - nothing may leave this server as a stack trace or a dropped connection
        response = _answer_error(error, request)
    if application[READINESS].shutting_down:
        response.force_close()  # sends the client's next request to another replica
    _record(request, response, loop.time() - started, application[METRICS])
    return response


def _answer_error(error: Exception, request: web.Request) -> web.Response:
    match error:
        case Refused():
            _log_refusal(error, request)
            if (decision := refusals.decision_of(request, error)) is not None:
                profile = request.match_info["namespace"], request.match_info["profile"]
                request.app[METRICS].count_refusal(error.type, profile)
                for tell in request.app[ON_REFUSED]:
                    tell(decision, error, profile=profile, credential=refusals.credential())
                request.app[AUDIT].add(partial(refusals.record, request, decision, error))
            return answer_refusal(error)
        case Unavailable():
            cause = str(error.__cause__) if isinstance(error.__cause__, errors.ClusterError) else None
            _log_failure(
                "service unavailable", request, detail=error.detail, retry_after=error.retry_after, error=cause
            )
            return answer_unavailable(error.detail, error.retry_after)
        case errors.Unavailable():
            logger.warning("Kubernetes API unavailable", extra={"error": str(error)})
            return answer_unavailable("The Kubernetes API server cannot be reached now.", error.retry_after)
        case errors.Forbidden() | errors.Invalid():
            logger.warning("the Kubernetes API refused a request", extra={"error": str(error)})
            return answer_unavailable("The Kubernetes API does not allow this at the moment.", _REFUSED)
        case web.HTTPException():
            return answer_refusal(_refusal_of(error))
        case _:
            logger.error("unexpected error", exc_info=error, extra={"route": _route(request)})
            return answer_refusal(Refused(ProblemType.SERVER_INTERNAL, "Something went wrong in the server."))


def _refusal_of(error: web.HTTPException) -> HTTPRefusal:
    """The refusals of aiohttp itself: unknown path, unknown method, too long a body."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return HTTPRefusal(ProblemType.SERVER_INTERNAL, error.reason, status=error.status)
    details = {
        HTTPStatus.NOT_FOUND: "There is no such resource.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This resource does not take that method; ACME reads with POST-as-GET.",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too long.",
    }
    detail = details.get(HTTPStatus(error.status), error.reason)
    allow = error.headers.get(hdrs.ALLOW)
    return HTTPRefusal(
        ProblemType.MALFORMED, detail, status=error.status, headers={hdrs.ALLOW: allow} if allow else None
    )


def _add_acme_headers(
    request: web.Request, response: web.StreamResponse, index: str, nonces: Nonces, session: Session
) -> None:
    """Add the headers of ACME (RFC 8555, 6.1, 6.5 and 7.1) to answers below the directory `index`."""
    cross_origin.allow_reading(response)
    headers = response.headers
    if request.method == hdrs.METH_POST and nonces.ready:
        headers["Replay-Nonce"] = nonces.issue(session.latest)
    # Nonces and the resources of accounts must not be cached.
    if request.method == hdrs.METH_POST or "Replay-Nonce" in headers:
        headers[hdrs.CACHE_CONTROL] = "no-store"
    headers.add(hdrs.LINK, link(index, "index"))


def _record(request: web.Request, response: web.StreamResponse, seconds: float, metrics: Metrics) -> None:
    """Log and count the request by the template of its route, never by its path."""
    route = _route(request)
    metrics.count_request(route, request.method, response.status, seconds)
    fields = {
        "method": request.method,
        "route": route,
        "status": response.status,
        "ms": round(seconds * 1000, 1),
        "account": request.get(ACCOUNT_NAME),
        "client": request.remote,
    }
    log_often(logger, "request", fields)


def _log_refusal(refused: Refused, request: web.Request) -> None:
    """Log the refusal in the words that the client gets."""
    identifiers = [each.identifier.value for each in refused.subproblems if each.identifier] or None
    _log_failure("request refused", request, outcome=refused.type.value, detail=refused.detail, identifiers=identifiers)


def _log_failure(event: str, request: web.Request, **reason: object) -> None:
    profile = "/".join(request.match_info.get(name, "") for name in ("namespace", "profile"))
    context = {"profile": profile, "account": request.get(ACCOUNT_NAME), "route": _route(request)}
    logger.info(event, extra=reason | context)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"
