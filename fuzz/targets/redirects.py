"""The Location of a redirect: a URL that may be fetched, or a refusal."""

from __future__ import annotations

from acme_server.validation.net.redirects import PORTS, RedirectRefused, challenge_url, resolve_redirect
from fuzz.target import Target
from kms.pki.names import dns_name
from kms.resources.orders import Identifier

_FROM = challenge_url(Identifier(type="dns", value="www.example.com"), "token", port=80)


def read(data: bytes) -> None:
    """As the Location of a response from the challenge URL."""
    url = resolve_redirect(_FROM, data, ports=PORTS)
    if url.port not in PORTS or dns_name(url.name.value, wildcard=False) != url.name:
        raise AssertionError("a redirect that must not be followed")
    if not (url.path + url.host).isascii() or any(each in url.path + url.host for each in " \r\n\0"):
        raise AssertionError("a request line that would break")


TARGET = Target(read, (RedirectRefused,), longest=4096)
