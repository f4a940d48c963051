"""Untrusted text in messages for people."""

from __future__ import annotations

_SHOWN = 80


def quoted(text: str) -> str:
    """The text in quotation marks, shortened, with unprintable characters escaped.

    So no client can break a line of the log or hide what follows.
    """
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f'"{"".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)}"'
