"""The tls-alpn-01 challenge (RFC 8737): a handshake on port 443 that presents a certificate for this challenge."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress

from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.connector import DEADLINE, Connection, Connector, Destination, TLSOptions
from acme_server.validation.net.tls_client import unverified_context
from acme_server.validation.tlsalpn01_certificate import WrongCertificate, check
from kms.pki.names import Name
from kms.resources.orders import Identifier

PROTOCOL = "acme-tls/1"


class TLSALPN01:
    """Validates tls-alpn-01 challenges."""

    def __init__(self, connector: Connector, *, port: int = 443, deadline: float = DEADLINE) -> None:
        self._connector = connector
        self._port = port
        self._deadline = deadline
        self._context = unverified_context(PROTOCOL)

    @classmethod
    def build(cls, settings: ValidationSettings) -> TLSALPN01:
        """The validator for these settings. Raises OSError and ValueError if they name no usable DNS servers."""
        connector = Connector(resolver=Resolver.build(settings.resolvers), addresses=AddressFilter(settings))
        return cls(connector, port=settings.tls_alpn01_port)

    async def __call__(self, identifier: Identifier, token: str, key_authorization: str) -> None:  # noqa: ARG002 - the token is part of the key authorization
        """Make one attempt. Raises ValidationFailed, which says where the proof was expected and what is wrong."""
        try:
            async with asyncio.timeout(self._deadline):
                await self._attempt(identifier, hashlib.sha256(key_authorization.encode("ascii")).digest())
        except TimeoutError:
            raise ValidationFailed(
                ProblemType.CONNECTION,
                f"The TLS handshake with {identifier.value} took longer than {self._deadline:g} seconds.",
                temporary=True,
            ) from None

    async def _attempt(self, identifier: Identifier, digest: bytes) -> None:
        destination = Destination(Name(identifier.type, identifier.value), self._port, identifier.value)
        tls = TLSOptions(self._context, server_name(identifier), temporary=True)
        # After the handshake nothing is sent or read.
        with await self._connector.connect(destination, tls) as connection:
            server = f"{identifier.value} ({connection.address}) port {self._port}"
            certificate = _negotiated_certificate(connection, server)
        try:
            check(certificate, identifier, digest)
        except WrongCertificate as error:
            raise ValidationFailed(ProblemType.UNAUTHORIZED, f"The certificate of {server} {error}.") from None


def server_name(identifier: Identifier) -> str:
    """The server name (SNI) of the handshake: the identifier; for an IP address its reverse name (RFC 8738, 6)."""
    if identifier.type == "ip":
        return ipaddress.ip_address(identifier.value).reverse_pointer
    return identifier.value


def _negotiated_certificate(connection: Connection, server: str) -> bytes:
    """The certificate in DER. Raises ValidationFailed unless the server selected the protocol."""
    session = connection.session
    if session is None or session.selected_alpn_protocol() != PROTOCOL:
        raise ValidationFailed(
            ProblemType.UNAUTHORIZED,
            f"{server} did not select the protocol {PROTOCOL} (ALPN): it does not support tls-alpn-01.",
            temporary=True,
        )
    certificate = session.getpeercert(binary_form=True)
    if certificate is None:
        raise ValidationFailed(ProblemType.TLS, f"{server} presented no certificate.", temporary=True)
    return certificate
