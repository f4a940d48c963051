"""Untrusted text in messages for people."""

from __future__ import annotations

_SHOWN = 80


def quoted(text: str) -> str:
    """The text in quotation marks, shortened, with unprintable characters escaped.

    So no client can break a line of the log or hide what follows.
    """
    return f'"{printable(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")}"'


def printable(text: str) -> str:
    """The text with unprintable characters escaped: what stands in objects must not command a terminal either."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
