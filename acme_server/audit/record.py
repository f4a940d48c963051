"""The lines of the audit stream.

Text that clients choose is cut and cleaned here: a line has at most MAXIMUM_LINE octets, so that container runtimes do
not split it, and no character that ends a line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from kms.logs import escape_line_ends

SCHEMA: Final = "kms-acme.audit/v1"
MAXIMUM_LINE = 16_384
"""Octets of a line with its line end."""
_NAMES_OCTETS = 8_192
"""Of all names of a line, as JSON."""
_DETAIL_OCTETS = 1_024
_PROBLEM_OCTETS = 512
_PROBLEMS = 5

Decision = Literal[
    "account.opened",
    "account.refused",
    "account.updated",
    "account.keyChanged",
    "account.keyChangeRefused",
    "account.suspended",
    "account.resumed",
    "account.deactivated",
    "order.opened",
    "order.refused",
    "order.invalid",
    "authorization.opened",
    "authorization.refused",
    "authorization.deactivated",
    "challenge.valid",
    "challenge.invalid",
    "challenge.refused",
    "certificate.issued",
    "certificate.refused",
    "certificate.revoked",
    "revocation.refused",
    "configuration.changed",
]
By = Literal["account", "key", "server", "administrator"]


class NamespacedName(Struct, frozen=True, kw_only=True):
    """An object of the cluster."""

    namespace: str
    name: str


class ChangedObject(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An object of the configuration that was created, changed or deleted."""

    kind: str
    namespace: str
    name: str
    change: Literal["created", "changed", "deleted"]
    generation: int | None = None


class NamedProblem(Struct, frozen=True, kw_only=True):
    """What is wrong with one name."""

    rule: str
    name: str
    detail: str


class AuditRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision. Members that do not apply are left out.

    `by` is who decided or asked: an account, the holder of a key without one, the server itself, or an administrator.
    `client` is the address of the connection. `account` is the account that the decision is about; `acting_account` is
    set if another one asked. `namespace` and `profile` are those of the CertificateProfile. `rule` is the error type of
    RFC 8555, 6.7 of a refusal; `reason` is that of a revocation, or of the condition of an order that has ended. Times
    are RFC 3339 in UTC.
    """

    # Their defaults would be left out.
    schema: Literal["kms-acme.audit/v1"]
    time: str
    replica: str
    decision: Decision
    by: By
    client: str | None = None
    namespace: str | None = None
    profile: str | None = None
    account: str | None = None
    acting_account: str | None = None
    credential: NamespacedName | None = None
    client_namespace: str | None = None
    order: str | None = None
    names: tuple[str, ...] = ()
    names_omitted: int = 0
    challenge: str | None = None
    serial_number: str | None = None
    authority_key_id: str | None = None
    not_before: str | None = None
    not_after: str | None = None
    reason: str | None = None
    rule: str | None = None
    detail: str | None = None
    problems: tuple[NamedProblem, ...] = ()
    object: ChangedObject | None = None


_encoder = msgspec.json.Encoder()


def line_of(record: AuditRecord) -> str:
    """The record as one line of JSON, without its line end."""
    return escape_line_ends(_encoder.encode(record).decode())


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the lines. Consumers must ignore members that they do not know."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://pki.kms.hanzo.ai/schemas/audit/v1",
        "title": "A line of the audit stream of kms-acme",
    }
    return head | msgspec.json.schema(AuditRecord)


def detail(text: str) -> str:
    """A problem's detail, cleaned and cut."""
    return _text(text, _DETAIL_OCTETS)


def problems(found: Iterable[tuple[str, str, str]]) -> tuple[NamedProblem, ...]:
    """The first problems of single names, each as (rule, name, detail)."""
    kept: list[NamedProblem] = []
    for rule, name, text in found:
        if len(kept) == _PROBLEMS:
            break
        kept.append(
            NamedProblem(rule=rule, name=_text(name, _PROBLEM_OCTETS // 2), detail=_text(text, _PROBLEM_OCTETS))
        )
    return tuple(kept)


def names(found: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """The names that fit into a line, and how many do not."""
    kept: list[str] = []
    octets = omitted = 0
    for name in found:
        clean = _text(name, _DETAIL_OCTETS)
        octets += _octets(clean) + 1
        if octets > _NAMES_OCTETS:
            omitted += 1
        else:
            kept.append(clean)
    return tuple(kept), omitted


def _text(text: str, octets: int) -> str:
    if text.isascii() and text.isprintable() and len(text) * 2 <= octets:
        return text
    clean = "".join(
        each if each == " " or unicodedata.category(each)[0] not in "CZ" else "\ufffd" for each in text[:octets]
    )
    while (size := _octets(clean)) > octets:
        clean = clean[: min(len(clean) - 1, len(clean) * octets // size)]
    return clean


def _octets(text: str) -> int:
    return len(msgspec.json.encode(text))
