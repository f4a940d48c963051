"""Refusals as lines of the audit stream: one for each request that asked for a decision and did not get it.

Only requests whose signature was verified count: others have asked for nothing. What passes by itself (a nonce that is
too old, a server that is not ready) is no decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web
from cryptography import x509

from acme_server import urls
from acme_server.api.request import Request
from acme_server.audit.actor import ACTOR
from acme_server.audit.decisions import Envelope, credential_name
from acme_server.audit.record import AuditRecord, Decision, detail, names, problems
from acme_server.payloads import NewAuthorization, NewOrder, decode
from acme_server.problems import AccountDoesNotExist, NotFound, ProblemType, Refused
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.meta import Key

_ASKED_FOR: tuple[tuple[str, Decision], ...] = (
    (urls.NEW_ACCOUNT, "account.refused"),
    (urls.KEY_CHANGE, "account.keyChangeRefused"),
    (urls.NEW_ORDER, "order.refused"),
    (urls.NEW_AUTHORIZATION, "authorization.refused"),
    (urls.CHALLENGE, "challenge.refused"),
    (urls.FINALIZE, "certificate.refused"),
    (urls.REVOKE_CERT, "revocation.refused"),
)
_DECISIONS: Mapping[str, Decision] = MappingProxyType(
    {web.DynamicResource(path).canonical: decision for path, decision in _ASKED_FOR}
)


def decision_of(request: Request, refused: Refused) -> Decision | None:
    """What was refused, of a profile that exists; None: nothing was decided."""
    decision, actor = _DECISIONS.get(request.route), ACTOR.get()
    if decision is None or actor is None or request.method != "POST":
        return None
    if (actor.account is None and not actor.by_key) or _is_no_decision(decision, refused):
        return None
    return decision


def credential() -> Key | None:
    """The EABCredential that the client of the current request has, or has proven to have the key of."""
    actor = ACTOR.get()
    return actor.credential if actor is not None else None


def record(request: Request, decision: Decision, refused: Refused, envelope: Envelope) -> AuditRecord:
    """The line of a refusal."""
    found = ((each.type.value, each.identifier.value, each.detail) for each in refused.subproblems if each.identifier)
    members = _subject(request, decision, envelope) | {
        "rule": refused.type.value,
        "detail": detail(refused.detail),
        "problems": problems(found),
    }
    return envelope.record(decision, **members)


def _is_no_decision(decision: Decision, refused: Refused) -> bool:
    if refused.type is ProblemType.BAD_NONCE or isinstance(refused, AccountDoesNotExist):
        return True
    return isinstance(refused, NotFound) and decision != "revocation.refused"


def _subject(request: Request, decision: Decision, envelope: Envelope) -> dict[str, Any]:
    if request.asked.order is not None:
        return envelope.of_order(request.asked.order)
    actor = envelope.actor
    account = actor.account if actor is not None else None
    kept, omitted = names(_names(request.payload, decision))
    return {
        "namespace": request.parameters.get("namespace"),
        "profile": request.parameters.get("profile"),
        "account": account[1] if account is not None else None,
        "credential": credential_name(credential()),
        "names": kept,
        "names_omitted": omitted,
        "order": request.parameters.get("order"),
        "serial_number": _serial_number(request.asked.certificate),
    }


def _names(payload: bytes, decision: Decision) -> tuple[str, ...]:
    """The names as the client wrote them, if its payload can be read."""
    try:
        if decision == "order.refused":
            return tuple(each.value for each in decode(payload, NewOrder).identifiers)
        if decision == "authorization.refused":
            return (decode(payload, NewAuthorization).identifier.value,)
    except Refused:  # that is why it was refused
        return ()
    return ()


def _serial_number(certificate: bytes | None) -> str | None:
    if certificate is None:
        return None
    try:
        return f"{x509.load_der_x509_certificate(certificate).serial_number:x}"[:128]
    except PARSER_ERRORS:
        return None
