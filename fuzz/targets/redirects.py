"""The Location of a redirect (SEC44): it leads to a place that we would go to, or is refused."""

from __future__ import annotations

from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.net.redirects import PORTS, challenge, redirected
from fuzz.target import Target
from kms.pki.names import dns_name
from kms.resources.orders import Identifier

_FROM = challenge(Identifier(type="dns", value="www.example.com"), "token", port=80)


def read(data: bytes) -> None:
    """From there once more: a place that was taken is written as it was read."""
    target = redirected(_FROM, data, ports=PORTS)
    if target.port not in PORTS or dns_name(target.name.value, wildcard=False) != target.name:
        raise AssertionError("a redirect to where none may lead")
    if not (target.path + target.host).isascii() or any(each in target.path + target.host for each in " \r\n\0"):
        raise AssertionError("a request line that would break")


TARGET = Target(read, (ValidationFailed,), longest=4096)
