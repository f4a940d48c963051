"""The Location header of a redirect during http-01 validation."""

from __future__ import annotations

from acme_server.validation.net.redirects import PORTS, RedirectRefused, challenge_url, resolve_redirect
from fuzz.target import Target
from kms.pki.names import dns_name
from kms.resources.orders import Identifier

_FROM = challenge_url(Identifier(type="dns", value="www.example.com"), "token", port=80)


def read(data: bytes) -> None:
    """Resolve the Location against the challenge URL."""
    url = resolve_redirect(_FROM, data, ports=PORTS)
    if url.port not in PORTS or dns_name(url.name.value, wildcard=False) != url.name:
        raise AssertionError("the redirect must not be followed")
    if not (url.path + url.host).isascii() or any(each in url.path + url.host for each in " \r\n\0"):
        raise AssertionError("the URL breaks the request line")


TARGET = Target(read, (RedirectRefused,), longest=4096)
