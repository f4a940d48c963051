"""Finds out what can be known of an object that does not fit its model: its identity, and which field is wrong.

Such objects count as absent, except that their deletion is seen and nothing that belongs to them is deleted. No value
of them is kept, so that none is logged.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kms.resources.meta import ObjectMeta, Unreadable

DEEPEST = 200
"""Levels at which a document is cut whose nesting is too deep to decode; an object of ours has twenty."""
TOO_DEEP = "nested too deeply"

_CUT = b'"\\u0000 nested too deeply"'
"""What stands in a cut document in place of what was cut: no name or value of Kubernetes begins with a NUL."""
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)
_OPENING = b"[{"
_WHERE = re.compile(r"(?P<problem>.*?)(?: - at (?:the key in )?`\$\.?(?P<field>[^`]*)`)?", re.DOTALL)
_QUOTED_VALUE = re.compile(r"(?<=value) .*", re.DOTALL)


class _Identity(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class _Labels(msgspec.Struct, frozen=True):
    labels: dict[str, str] = {}


class _Object(msgspec.Struct, frozen=True):
    metadata: dict[str, Any] = {}


def unreadable(body: bytes | msgspec.Raw | dict[str, Any], error: Exception) -> Unreadable:
    """What is known of the object in `body`, which cannot be decoded because of `error`."""
    if isinstance(error, RecursionError):
        return Unreadable(_metadata(body), "", TOO_DEEP)
    match = _WHERE.fullmatch(str(error))
    problem, field = (match["problem"], match["field"] or "") if match else (str(error), "")
    # msgspec quotes a word that is not one of those allowed.
    return Unreadable(_metadata(body), field, _QUOTED_VALUE.sub("", problem))


def cut(body: bytes) -> bytes:
    """The JSON document with a text in place of everything that is nested more than `DEEPEST` levels deep.

    Without recursion, so that it works for any document. It takes a second for 30 MB.
    """
    kept: list[bytes] = []
    depth = begin = 0
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in _OPENING:
            depth += 1
            if depth == DEEPEST + 1:
                kept += body[begin : token.start()], _CUT
        elif first != ord('"'):
            if depth == DEEPEST + 1:
                begin = token.end()
            depth -= 1
    return b"".join([*kept, body[begin:]])


def is_cut(body: bytes | msgspec.Raw) -> bool:
    """Whether something was cut from this part of a document."""
    return _CUT in bytes(body)


def _metadata(body: bytes | msgspec.Raw | dict[str, Any]) -> ObjectMeta:
    try:
        found = msgspec.convert(body, _Object) if isinstance(body, dict) else _decode(body)
        identity = msgspec.convert(found.metadata, _Identity)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ObjectMeta()
    try:
        labels = msgspec.convert(found.metadata, _Labels).labels
    except msgspec.ValidationError:
        labels = {}
    return ObjectMeta(
        name=identity.name,
        namespace=identity.namespace,
        uid=identity.uid,
        resource_version=identity.resource_version,
        labels=labels,
    )


def _decode(body: bytes | msgspec.Raw) -> _Object:
    try:
        return msgspec.json.decode(body, type=_Object)
    except RecursionError:
        return msgspec.json.decode(cut(bytes(body)), type=_Object)
