"""The http-01 challenge (RFC 8555, 8.3): the key authorization at a fixed path on port 80 of the identifier."""

from __future__ import annotations

import hmac

from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.http_client import Document, HTTPClient, failure_behind_redirect
from acme_server.validation.net.redirects import PORTS, challenge_url
from kms.resources.orders import Identifier

MAXIMUM_BODY = 256
"""Octets; a key authorization has about 76, and some servers add white space."""
_OK = 200
_TEMPORARY = frozenset({404, 408, 425, 429})


class HTTP01:
    """Validates http-01 challenges."""

    def __init__(self, client: HTTPClient, *, port: int = 80) -> None:
        self._client = client
        self._port = port

    @classmethod
    def build(cls, settings: ValidationSettings) -> HTTP01:
        """The validator for these settings. Raises OSError and ValueError if they name no usable DNS servers."""
        client = HTTPClient(
            resolver=Resolver.build(settings.resolvers),
            addresses=AddressFilter(settings),
            ports=PORTS | {settings.http01_port},
        )
        return cls(client, port=settings.http01_port)

    async def __call__(self, identifier: Identifier, token: str, key_authorization: str) -> None:
        """Make one attempt. Raises ValidationFailed, which says where the proof was expected and what is wrong."""
        url = challenge_url(identifier, token, port=self._port)
        document = await self._client.fetch(url, maximum_body=MAXIMUM_BODY)
        failure = _failure(document, key_authorization)
        if failure is not None and document.redirected:
            raise failure_behind_redirect(url, str(failure))
        if failure is not None:
            raise failure


def _failure(document: Document, key_authorization: str) -> ValidationFailed | None:
    if document.status != _OK:
        return ValidationFailed(
            ProblemType.UNAUTHORIZED,
            f"{document.source} answered with status {document.status} instead of 200.",
            temporary=document.status in _TEMPORARY or document.status >= 500,  # noqa: PLR2004 - server errors
        )
    # Editors and echo add trailing white space.
    if not hmac.compare_digest(document.body.rstrip(b" \t\r\n"), key_authorization.encode("ascii")):
        return ValidationFailed(
            ProblemType.UNAUTHORIZED,
            f"{document.source} answered with something other than the key authorization of this challenge: "
            "token, dot, thumbprint of the account's key.",
        )
    return None
