"""The URL of an http-01 challenge, and the redirects that may be followed from there. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urljoin, urlsplit

from kms.pki.names import InvalidName, Name, dns_name, ip_address
from kms.resources.orders import Identifier

STATUSES = frozenset({301, 302, 307, 308})
"""The statuses of redirects that are followed."""
MAXIMUM_REDIRECTS = 10
PORTS = frozenset({80, 443})

_MAXIMUM_LENGTH = 2048
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class FetchURL:
    """An http or https URL. `host` is the Host header: for the first request the identifier and nothing else.

    `literal` says whether redirects may lead to IP addresses: only where the identifier is one.
    """

    scheme: Literal["http", "https"]
    name: Name
    port: int
    path: str
    host: str
    literal: bool = False

    def __str__(self) -> str:
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{_bracket(self.name)}{port}{self.path}"


def challenge_url(identifier: Identifier, token: str, *, port: int) -> FetchURL:
    """The URL of the key authorization of an http-01 challenge (for IP addresses: RFC 8738, 4)."""
    name = Name(identifier.type, identifier.value)
    path = f"/.well-known/acme-challenge/{token}"
    return FetchURL("http", name, port, path, _bracket(name), literal=identifier.type == "ip")


def _bracket(name: Name) -> str:
    return f"[{name.value}]" if ":" in name.value else name.value


class RedirectRefused(Exception):
    """A redirect that is not followed. The message ends a sentence about the redirecting server."""


def resolve_redirect(base: FetchURL, location: bytes, *, ports: Collection[int]) -> FetchURL:
    """Resolve `location`, the Location of a response from `base`.

    Raises RedirectRefused for a malformed URL, a scheme other than http and https, a port other than `ports`,
    credentials, and an IP address: in any spelling or, where the identifier is one, in any but the canonical one.
    The message does not repeat the location.
    """
    parts = _split(base, location)
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refusal("to a scheme other than http and https")
    if "@" in parts.netloc:
        raise _refusal("to a URL with credentials")
    try:
        port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
        name = _host(parts.hostname or "", literal=base.literal)
    except InvalidName:
        raise _refusal("to a host that is not a DNS name") from None
    except ValueError:
        raise _refusal("to a malformed URL") from None
    if port not in ports:
        raise _refusal(f"to a port other than {', '.join(str(each) for each in sorted(ports))}")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = _bracket(name) if port == _DEFAULT_PORTS[scheme] else f"{_bracket(name)}:{port}"
    return FetchURL(scheme, name, port, path, host, base.literal)


def _host(text: str, *, literal: bool) -> Name:
    if literal:
        try:
            return ip_address(text)
        except InvalidName:
            pass  # it may be a name
    return dns_name(text, wildcard=False)


def _split(base: FetchURL, location: bytes) -> SplitResult:
    if len(location) > _MAXIMUM_LENGTH:
        raise _refusal("to a URL that is too long")
    try:
        text = location.decode("ascii")
        if not _URL.fullmatch(text):
            raise _refusal("to a malformed URL")
        parts = urlsplit(text)
        # A reference with a scheme is not relative, but urljoin would complete `http:///` and `http:path`.
        return parts if parts.scheme else urlsplit(urljoin(str(base), text))
    except ValueError:
        raise _refusal("to a malformed URL") from None


def _refusal(where: str) -> RedirectRefused:
    return RedirectRefused(f"it redirects {where}, which is not followed")
