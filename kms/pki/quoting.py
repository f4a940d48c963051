"""Text of strangers inside of messages for people."""

from __future__ import annotations

_SHOWN = 80


def quoted(text: str) -> str:
    """The text between quotation marks: cut where it is long, and with what cannot be printed escaped.

    So nothing that a client sends breaks a line of a log or hides what follows it.
    """
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f'"{"".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)}"'
