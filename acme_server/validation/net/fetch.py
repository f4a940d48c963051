"""Fetches a small document from a host that anybody may have chosen, and from where it redirects to.

Every hop is a new connection to an address that was checked for it. What is said about a failure names the identifier,
its address and the kind of the failure, and nothing that came over the wire.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from acme_server.problems import ProblemType
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.net import http_client, redirects
from acme_server.validation.net.address_filter import Address, AddressFilter
from acme_server.validation.net.connector import CONNECT, DEADLINE, TLS, Connector, Place
from acme_server.validation.net.redirects import Target
from acme_server.validation.net.tls_client import unverified


@dataclass(frozen=True, slots=True)
class Document:
    """What was fetched in the end. `source` says from where, for people: the identifier's address, or a redirect."""

    status: int
    body: bytes
    source: str


class Fetcher:
    """Fetches documents of at most `maximum_body` octets. Raises ValidationFailed, and nothing else.

    `deadline` is for everything: lookups, connections, redirects, the body.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        addresses: AddressFilter,
        ports: frozenset[int] = redirects.PORTS,
        deadline: float = DEADLINE,
        connect: float = CONNECT,
    ) -> None:
        self._connector = Connector(resolver=resolver, addresses=addresses, connect=connect)
        self._ports = ports
        self._deadline = deadline
        self._context = unverified()

    async def fetch(self, target: Target, *, maximum_body: int) -> Document:
        """What is at the target, or where that redirects to (at most ten times, RFC 8555, 8.3)."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._follow(target, maximum_body)
        except TimeoutError:
            raise ValidationFailed(
                ProblemType.CONNECTION,
                f"Fetching {target.url} took longer than {self._deadline:g} seconds.",
                temporary=True,
            ) from None

    async def _follow(self, first: Target, maximum_body: int) -> Document:
        target = first
        for hop in range(redirects.MAXIMUM_REDIRECTS + 1):
            response, source = await self._get(target, hop, maximum_body)
            if response.status not in redirects.STATUSES:
                return Document(response.status, response.body, source)
            if response.location is None:
                raise ValidationFailed(ProblemType.INCORRECT_RESPONSE, f"{source} redirects to nowhere.")
            try:
                target = redirects.redirected(target, response.location, ports=self._ports)
            except ValidationFailed as failure:
                raise ValidationFailed(
                    ProblemType.INCORRECT_RESPONSE, f"{source} cannot be used: {failure.problem.detail}."
                ) from None
        raise ValidationFailed(
            ProblemType.INCORRECT_RESPONSE, f"{first.url} redirects more than {redirects.MAXIMUM_REDIRECTS} times."
        )

    async def _get(self, target: Target, hop: int, maximum_body: int) -> tuple[http_client.Response, str]:
        """The answer of one hop, and in words where it comes from."""
        tls = TLS(self._context, target.name.value) if target.scheme == "https" else None
        async with self._connector.connected(_place(target, hop), tls) as connection:
            source = _source(target, hop, connection.address)
            try:
                answer = connection.ask(http_client.request(target.host, target.path))
                return await http_client.response(answer, maximum_body=maximum_body), source
            except http_client.InvalidResponse as error:
                raise ValidationFailed(
                    ProblemType.INCORRECT_RESPONSE, f"The answer of {source} cannot be used: {error}."
                ) from None
            except (OSError, EOFError):
                raise ValidationFailed(
                    ProblemType.CONNECTION, f"{source} closed the connection before it had answered.", temporary=True
                ) from None


def _place(target: Target, hop: int) -> Place:
    # Where a redirect leads was chosen by what we fetched, so it is not repeated.
    who = target.name.value if hop == 0 else f"the host of redirect {hop}"
    return Place(target.name, target.port, who, hidden=hop > 0)


def _source(target: Target, hop: int, address: Address) -> str:
    return f"{target.url} ({address})" if hop == 0 else f"the target of redirect {hop}"
