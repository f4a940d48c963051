"""Texts for the columns of kubectl, which prints a list as JSON, however long."""

from __future__ import annotations

from collections.abc import Sequence

MAXIMUM_LENGTH = 80
"""Characters of a text for a column: the line of an object then stays below 200."""

_CUT = "..."


def list_text(values: Sequence[str]) -> str:
    """Return `a, b and 3 more`: the first values that fit into MAXIMUM_LENGTH characters, and the number of the others.

    The first value is always shown, cut if it is too long. The text of no values is empty.
    """
    if not values:
        return ""
    if len(values) <= MAXIMUM_LENGTH and len(text := ", ".join(values)) <= MAXIMUM_LENGTH:
        return text
    text, shown = values[0], 1
    for value in values[1:MAXIMUM_LENGTH]:
        longer = f"{text}, {value}"
        if len(longer + _rest(len(values) - shown - 1)) > MAXIMUM_LENGTH:
            break
        text, shown = longer, shown + 1
    rest = _rest(len(values) - shown)
    if len(text + rest) > MAXIMUM_LENGTH:
        text = text[: MAXIMUM_LENGTH - len(_CUT + rest)] + _CUT
    return text + rest


def _rest(count: int) -> str:
    return f" and {count} more" if count else ""
