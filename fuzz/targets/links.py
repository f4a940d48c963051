"""URLs of ours in the mouths of clients: the kid of a request, the path of another (SEC05, SEC15)."""

from __future__ import annotations

from acme_server.urls import URLs
from fuzz.target import Target

URL = "https://acme.example.com"
_LINKS = URLs(URL)


def read(data: bytes) -> None:
    """What is read as an account's URL is exactly what we would have written."""
    text = data.decode("utf-8", "surrogateescape")
    _LINKS.directory_of(text)
    found = _LINKS.parse_account(text)
    if found is not None and f"{_LINKS.profile(found.namespace, found.profile)}/accounts/{found.account}" != text:
        raise AssertionError("a URL with two spellings")


TARGET = Target(read, (), longest=16 * 1024)
