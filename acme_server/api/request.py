"""A request to the server, and what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from aiohttp import web

from kms.resources import ACMEOrder


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about: an order, or a certificate in DER."""

    order: ACMEOrder | None = None
    certificate: bytes | None = None


class Request(web.BaseRequest):
    """A request. The router, the authenticator and handlers note what they have found out about it."""

    route = "none"
    """The template of its path, for logs and metrics; "none": there is no resource that takes it."""

    parameters: Mapping[str, str] = MappingProxyType({})
    """The names in its path."""

    account: str | None = None
    """The name of the account in its `kid`, whose signature may be wrong."""

    payload = b""
    """The payload that an account has signed, also where the account may not act."""

    asked = Asked()
