"""Refusals as lines of the audit stream: one for each request that asked for a decision and did not get it.

Only requests whose signature was verified count: others have asked for nothing. What passes by itself (a nonce that is
too old, a server that is not ready) is no decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aiohttp import web
from cryptography import x509

from acme_server import urls
from acme_server.api.authentication import PAYLOAD
from acme_server.audit.actor import ACTOR
from acme_server.audit.decisions import Envelope, credential_name
from acme_server.audit.record import AuditRecord, Decision, detail, names, problems
from acme_server.payloads import NewAuthorization, NewOrder, decode
from acme_server.problems import AccountDoesNotExist, NotFound, ProblemType, Refused
from kms.pki.parsing import PARSER_ERRORS
from kms.resources import ACMEOrder
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about: an order, or a certificate in DER."""

    order: ACMEOrder | None = None
    certificate: bytes | None = None


ASKED = web.RequestKey("asked", Asked)


def decision_of(request: web.Request, refused: Refused) -> Decision | None:
    """What was refused, of a profile that exists; None: nothing was decided."""
    resource, actor = request.match_info.route.resource, ACTOR.get()
    decision = _DECISIONS.get(resource.canonical if resource is not None else "")
    if decision is None or actor is None or request.method != "POST":
        return None
    if (actor.account is None and not actor.by_key) or _is_no_decision(decision, refused):
        return None
    return decision


def credential() -> Key | None:
    """The EABCredential that the client of the current request has, or has proven to have the key of."""
    actor = ACTOR.get()
    return actor.credential if actor is not None else None


def record(request: web.Request, decision: Decision, refused: Refused, envelope: Envelope) -> AuditRecord:
    """The line of a refusal."""
    asked = request.get(ASKED, Asked())
    found = ((each.type.value, each.identifier.value, each.detail) for each in refused.subproblems if each.identifier)
    members = _subject(request, asked, decision, envelope) | {
        "rule": refused.type.value,
        "detail": detail(refused.detail),
        "problems": problems(found),
    }
    return envelope.record(decision, **members)


def _is_no_decision(decision: Decision, refused: Refused) -> bool:
    if refused.type is ProblemType.BAD_NONCE or isinstance(refused, AccountDoesNotExist):
        return True
    return isinstance(refused, NotFound) and decision != "revocation.refused"


def _subject(request: web.Request, asked: Asked, decision: Decision, envelope: Envelope) -> dict[str, Any]:
    if asked.order is not None:
        return envelope.of_order(asked.order)
    actor = envelope.actor
    account = actor.account if actor is not None else None
    kept, omitted = names(_names(request.get(PAYLOAD, b""), decision))
    return {
        "namespace": request.match_info.get("namespace"),
        "profile": request.match_info.get("profile"),
        "account": account[1] if account is not None else None,
        "credential": credential_name(credential()),
        "names": kept,
        "names_omitted": omitted,
        "order": request.match_info.get("order"),
        "serial_number": _serial_number(asked.certificate),
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
