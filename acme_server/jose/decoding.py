"""Strict decoding of untrusted bytes: UTF-8, base64url and JSON, without anything that parsers disagree about.

Python's JSON decoder accepts duplicate members, NaN and unpaired surrogates, which JOSE forbids, and recurses with the
depth of its input. Its base64 decoder skips what it does not know. All of that raises `Refused` here.
"""

from __future__ import annotations

import binascii
import json
import re
import string
from typing import Any, NoReturn

import msgspec

from acme_server.problems import ProblemType, Refused

MAXIMUM_DEPTH = 16
"""Nesting of arrays and objects."""

_LAST = (string.ascii_letters + string.digits + "-_", (), "AQgw", "AEIMQUYcgkosw048")
"""By the length modulo four: the last characters that leave no bits over. A remainder of one is impossible."""
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")
"""To the alphabet of base64, without the characters that only that one has."""
_PADDING = (b"", b"", b"==", b"=")
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def malformed(detail: str) -> Refused:
    """The refusal of a malformed request."""
    return Refused(ProblemType.MALFORMED, detail)


def base64url(text: object, what: str) -> bytes:
    """The bytes that `text` encodes in unpadded base64url (RFC 7515, 2).

    Padding, white space, other alphabets and stray bits at the end are refused: every value has one spelling.
    `what` names the value in the refusal.
    """
    if not isinstance(text, str):
        raise malformed(f"{what} is not unpadded base64url.")
    remainder = len(text) % 4
    try:
        octets = binascii.a2b_base64(text.encode("ascii").translate(_TO_BASE64) + _PADDING[remainder], strict_mode=True)
    except ValueError:  # another alphabet, or not ASCII
        raise malformed(f"{what} is not unpadded base64url.") from None
    if text[-1:] not in _LAST[remainder]:
        raise malformed(f"{what} is not canonical base64url.")
    return octets


def json_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `data`, without duplicate members and without deep nesting.

    `what` names the document in the refusal.
    """
    try:
        members = _texts.decode(data)
        # An object of texts without escapes, as most documents are, in a fraction of the time. Each of its texts has
        # two quotation marks, so their number shows whether a member occurs twice.
        if data.count(b'"') == 4 * len(members) and b"\\" not in data:
            return members
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # it has other values, or is not valid
    return _any_object(data, what)


def _any_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        # The depth is checked first: the decoder would recurse.
        if _too_deep(data):
            raise malformed(f"{what} nests deeper than {MAXIMUM_DEPTH} levels.")
        value = _decode(data.decode())
        if rb"\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # unpaired surrogates have no UTF-8
    except UnicodeError:
        raise malformed(f"{what} is not valid UTF-8.") from None
    except ValueError:
        raise malformed(f"{what} is not valid JSON, or has duplicate members.") from None
    if not isinstance(value, dict):
        raise malformed(f"{what} is not a JSON object.")
    return value


def _too_deep(data: bytes) -> bool:
    if data.count(b"{") + data.count(b"[") <= MAXIMUM_DEPTH:
        return False
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAXIMUM_DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_texts = msgspec.json.Decoder(dict[str, str])
_decode = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant).decode
