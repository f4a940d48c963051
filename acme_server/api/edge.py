"""Common to all answers: errors become problem documents, requests become log lines and metrics.

Every answer to a POST carries a new nonce and a link to the directory. Unexpected errors are answered as serverInternal
without details, and logged in full.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from http import HTTPStatus

from aiohttp import HttpVersion11, hdrs, web

from acme_server.api import cross_origin, refusals
from acme_server.api.context import Context
from acme_server.api.problems import HTTPRefusal, answer_refusal, answer_unavailable
from acme_server.api.request import Request
from acme_server.api.responses import link
from acme_server.api.routing import Router
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


async def edge(request: Request, *, router: Router, context: Context, acme: bool = True) -> web.Response:
    """Answer a request, also after an error. Without TLS it is not `acme`: then no path lies under a directory."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    ACTOR.set(Actor(request.remote))
    SESSION.set(session := Session() if context.nonces.carry_seen else None)
    directory = context.urls.directory_of(request.raw_path) if acme else None
    try:
        if expectation := request.headers.get(hdrs.EXPECT):
            await _continue(request, expectation)
        response = await router.handler(request)(request, context)
    except web.HTTPMethodNotAllowed as error:
        preflight = cross_origin.preflight(request, error.allowed_methods) if directory is not None else None
        response = preflight or answer_refusal(_refusal_of(error))
    except Exception as error:  # noqa: BLE001 - nothing may leave this server as a stack trace or a dropped connection
        response = _answer_error(error, request, context)
    if context.readiness.shutting_down:
        response.force_close()  # sends the client's next request to another replica
    if directory is not None:
        _add_acme_headers(request, response, directory, context.nonces, session)
    _record(request, response, loop.time() - started, context.metrics)
    return response


async def _continue(request: Request, expectation: str) -> None:
    """Let a client send its body that waits for this (RFC 9110, 10.1.1). Raises HTTPExpectationFailed."""
    if request.version < HttpVersion11:
        return
    if expectation.lower() != "100-continue":
        raise web.HTTPExpectationFailed
    with suppress(ConnectionError):  # whoever reads the body notices that the client has gone
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the response has not begun


def _answer_error(error: Exception, request: Request, context: Context) -> web.Response:
    match error:
        case Refused():
            _log_refusal(error, request)
            if (decision := refusals.decision_of(request, error)) is not None:
                profile = request.parameters["namespace"], request.parameters["profile"]
                context.metrics.count_refusal(error.type, profile)
                for tell in context.on_refused:
                    tell(decision, error, profile=profile, credential=refusals.credential())
                context.audit.add(partial(refusals.record, request, decision, error))
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
            logger.error("unexpected error", exc_info=error, extra={"route": request.route})
            return answer_refusal(Refused(ProblemType.SERVER_INTERNAL, "Something went wrong in the server."))


def _refusal_of(error: web.HTTPException) -> HTTPRefusal:
    """The refusals in aiohttp's words: unknown path, method or expectation."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return HTTPRefusal(ProblemType.SERVER_INTERNAL, error.reason, status=error.status)
    details = {
        HTTPStatus.NOT_FOUND: "There is no such resource.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This resource does not take that method; ACME reads with POST-as-GET.",
        HTTPStatus.EXPECTATION_FAILED: "The only expectation that this server meets is 100-continue.",
    }
    detail = details.get(HTTPStatus(error.status), error.reason)
    allow = error.headers.get(hdrs.ALLOW)
    return HTTPRefusal(
        ProblemType.MALFORMED, detail, status=error.status, headers={hdrs.ALLOW: allow} if allow else None
    )


def _add_acme_headers(
    request: Request, response: web.Response, index: str, nonces: Nonces, session: Session | None
) -> None:
    """Add the headers of ACME (RFC 8555, 6.1, 6.5 and 7.1) to answers below the directory `index`."""
    headers = response.headers
    headers.update(cross_origin.READABLE)
    if request.method == hdrs.METH_POST and nonces.ready:
        headers["Replay-Nonce"] = nonces.issue(session.latest if session is not None else None)
    # Nonces and the resources of accounts must not be cached.
    if request.method == hdrs.METH_POST or "Replay-Nonce" in headers:
        headers[hdrs.CACHE_CONTROL] = "no-store"
    headers.add(hdrs.LINK, link(index, "index"))


def _record(request: Request, response: web.Response, seconds: float, metrics: Metrics) -> None:
    """Log and count the request by the template of its route, never by its path."""
    status = response.status
    metrics.count_request(request.route, request.method, status, seconds)
    fields = {
        "method": request.method,
        "route": request.route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "account": request.account,
        "client": request.remote,
    }
    log_often(logger, "request", fields)


def _log_refusal(refused: Refused, request: Request) -> None:
    """Log the refusal in the words that the client gets."""
    identifiers = [each.identifier.value for each in refused.subproblems if each.identifier] or None
    _log_failure("request refused", request, outcome=refused.type.value, detail=refused.detail, identifiers=identifiers)


def _log_failure(event: str, request: Request, **reason: object) -> None:
    profile = "/".join(request.parameters.get(name, "") for name in ("namespace", "profile"))
    context = {"profile": profile, "account": request.account, "route": request.route}
    logger.info(event, extra=reason | context)
