"""The identifier of a certificate in the URL of its renewal information (RFC 9773, 4.1)."""

from __future__ import annotations

from acme_server.model import parse_certificate_id
from acme_server.problems import Refused
from fuzz.target import Target


def read(data: bytes) -> None:
    """What is taken is written as it was read."""
    text = data.decode("utf-8", "replace")
    if str(parse_certificate_id(text)) != text:
        raise AssertionError("an identifier with two spellings")


TARGET = Target(read, (Refused,), longest=4096)
