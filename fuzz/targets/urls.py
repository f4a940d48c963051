"""URLs that clients send back: the kid of a request, the path of another one."""

from __future__ import annotations

from acme_server.urls import URLs
from fuzz.target import Target

URL = "https://acme.example.com"
_URLS = URLs(URL)


def read(data: bytes) -> None:
    """Parse the URL of an account. An accepted URL is exactly the one that the server wrote."""
    text = data.decode("utf-8", "surrogateescape")
    _URLS.directory_of(text)
    found = _URLS.parse_account(text)
    if found is not None and f"{_URLS.profile(found.namespace, found.profile)}/accounts/{found.account}" != text:
        raise AssertionError("the URL is not canonical")


TARGET = Target(read, (), longest=16 * 1024)
