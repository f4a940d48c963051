"""The certificate identifier in the URL of renewal information (RFC 9773, 4.1)."""

from __future__ import annotations

from acme_server.model import parse_certificate_id
from acme_server.problems import Refused
from fuzz.target import Target


def read(data: bytes) -> None:
    """Parse the identifier; an accepted one must be canonical."""
    text = data.decode("utf-8", "replace")
    if str(parse_certificate_id(text)) != text:
        raise AssertionError("the identifier is not canonical")


TARGET = Target(read, (Refused,), longest=4096)
