"""Contact URLs of accounts (RFC 8555, 7.3). They keep their spelling: cert-manager compares them.

Only blanks behind the scheme are skipped, which clients take over from the input of a person ("mailto: a@example.com").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from acme_server.problems import ProblemType, Refused
from kms.resources.columns import list_text

_MAXIMUM_LENGTH = 320
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BLANKS = re.compile(r"\A(mailto:)[ \t]+", re.IGNORECASE)
# One addr-spec of RFC 5322 without comments, quoted strings and folding: what people and programs have as addresses.
# Percent-encoding (RFC 6068) is kept; "?" and "," cannot match, so neither hfields nor a second address can.
_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9!#$&'*+/=^_`{|}~.-]|%[0-9A-Fa-f]{2}){1,64}"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def parse(contacts: Iterable[str]) -> tuple[str, ...]:
    """The contacts, each once, if every one of them is a mailto URL with a single address.

    Raises Refused: unsupportedContact for another scheme, invalidContact for a value that is no address.
    """
    unique = tuple(dict.fromkeys(_BLANKS.sub(r"\1", each, count=1) for each in contacts))
    for each in unique:
        _check(each)
    return unique


def text(contact: Sequence[str]) -> str | None:
    """The contacts as the column of kubectl shows them, without the scheme that all have; None if there are none."""
    return list_text([each.partition(":")[2] for each in contact]) or None


def _check(contact: str) -> None:
    scheme = _SCHEME.match(contact)
    if scheme is None:
        raise Refused(ProblemType.INVALID_CONTACT, "A contact is not a URL; write it as mailto:admin@example.com.")
    if scheme.group().lower() != "mailto:":
        raise Refused(
            ProblemType.UNSUPPORTED_CONTACT,
            f"Contacts with the scheme {scheme.group()[:32]} are not supported; use mailto:.",
        )
    if len(contact) > _MAXIMUM_LENGTH or not _ADDRESS.fullmatch(contact[scheme.end() :]):
        raise Refused(
            ProblemType.INVALID_CONTACT,
            "A contact is not a single mail address; header fields and lists of addresses are not accepted.",
        )
