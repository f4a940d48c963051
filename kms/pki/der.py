"""A reader of DER (X.690) for structures that are read element by element, each with a name for messages.

It reads definite lengths in their shortest form and tags of one octet. Each element ends where the one around it ends,
or earlier, so nothing is read twice and the time is proportional to the input. What follows from an element's content
is for callers: the reader does not mind the order of a SET, nor a default value that is spelt out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OBJECT_IDENTIFIER: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31

MAXIMUM_OBJECT_IDENTIFIER: Final = 63
"""Octets of an object identifier; cryptography reads no longer one either."""

_NAMES: Mapping[int, str] = MappingProxyType(
    {
        BOOLEAN: "BOOLEAN",
        INTEGER: "INTEGER",
        BIT_STRING: "BIT STRING",
        OCTET_STRING: "OCTET STRING",
        NULL: "NULL",
        OBJECT_IDENTIFIER: "OBJECT IDENTIFIER",
        SEQUENCE: "SEQUENCE",
        SET: "SET",
    }
)
_MULTIPLE_OCTETS = 0x1F
_LONG_FORM = 0x80
_LENGTH_OCTETS = 4


class MalformedDER(ValueError):
    """Bytes that are not DER of the expected structure; the message is a clause, such as "the subject is cut off"."""


class Element(Struct, frozen=True):
    """One element: its tag, and where it starts, its content starts, and it ends."""

    tag: int
    start: int
    content: int
    end: int


class Reader:
    """Reads the elements of one value, one after the other. `what` names the value in messages ("the subject")."""

    __slots__ = ("_data", "_end", "_position", "what")

    def __init__(self, data: bytes, what: str, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._position = start
        self._end = len(data) if end is None else end
        self.what = what

    def more(self) -> bool:
        """Whether another element follows."""
        return self._position < self._end

    def expect(self, expected: int | None, what: str) -> Element:
        """The next element, which must have this tag; None: any. Raises MalformedDER."""
        data, start = self._data, self._position
        position = start + 2
        if position > self._end:
            raise MalformedDER(f"{what} is missing" if start == self._end else f"{what} is cut off")
        tag, length = data[start], data[start + 1]
        if tag & _MULTIPLE_OCTETS == _MULTIPLE_OCTETS:
            raise MalformedDER(f"{what} has a tag of several octets")
        if length >= _LONG_FORM:
            octets = length - _LONG_FORM
            if octets == 0:
                raise MalformedDER(f"{what} has an indefinite length (BER, not DER)")
            if octets > _LENGTH_OCTETS or position + octets > self._end:
                raise MalformedDER(f"{what} is cut off")
            length = int.from_bytes(data[position : position + octets], "big")
            if length < _LONG_FORM or length >> 8 * (octets - 1) == 0:
                raise MalformedDER(f"the length of {what} is not in its shortest form (BER, not DER)")
            position += octets
        end = position + length
        if end > self._end:
            raise MalformedDER(f"{what} is cut off")
        if expected is not None and tag != expected:
            raise MalformedDER(f"{what} is {_name(tag)} and not {_name(expected)}")
        self._position = end
        return Element(tag, start, position, end)

    def expect_if(self, tag: int, what: str) -> Element | None:
        """The next element if there is one and it has this tag; otherwise nothing is read. Raises MalformedDER."""
        if self._position < self._end and self._data[self._position] == tag:
            return self.expect(tag, what)
        return None

    def enter(self, tag: int, what: str) -> Reader:
        """A reader of the content of the next element, which must have this tag. Raises MalformedDER."""
        element = self.expect(tag, what)
        return Reader(self._data, what, element.content, element.end)

    def inside(self, element: Element, what: str) -> Reader:
        """A reader of the content of an element."""
        return Reader(self._data, what, element.content, element.end)

    def content(self, element: Element) -> bytes:
        """The content of an element."""
        return self._data[element.content : element.end]

    def encoded(self, element: Element) -> bytes:
        """An element as it was received, with tag and length."""
        return self._data[element.start : element.end]

    def object_identifier(self, what: str) -> str:
        """The next element, an object identifier, in dotted form. Raises MalformedDER."""
        element = self.expect(OBJECT_IDENTIFIER, what)
        return dotted(self._data[element.content : element.end], what)

    def finish(self) -> None:
        """Raise MalformedDER if another element follows."""
        if self._position < self._end:
            raise MalformedDER(f"{self.what} has {self._end - self._position} bytes too many")


def encode(tag: int, *contents: bytes) -> bytes:
    """An element with this content."""
    content = b"".join(contents)
    size = len(content)
    if size < _LONG_FORM:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(octets))) + octets + content


def dotted(content: bytes, what: str) -> str:
    """The dotted form of an object identifier, from its content. Raises MalformedDER.

    Each number must be in its shortest form, so that no identifier has two spellings.
    """
    if not content or len(content) > MAXIMUM_OBJECT_IDENTIFIER or content[-1] & 0x80:
        raise MalformedDER(f"{what} is not an object identifier")
    numbers: list[int] = []
    number, begins = 0, True
    for octet in content:
        if begins and octet == 0x80:  # noqa: PLR2004 - a leading zero of a number
            raise MalformedDER(f"{what} is an object identifier with a leading zero")
        number = number << 7 | octet & 0x7F
        begins = octet < 0x80  # noqa: PLR2004 - the last octet of a number
        if begins:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _name(tag: int) -> str:
    return f"of type {_NAMES[tag]}" if tag in _NAMES else f"of tag 0x{tag:02x}"
