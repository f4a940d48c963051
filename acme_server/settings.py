"""What the ACME server is told at start. Built by the command line, read by the wiring."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from urllib.parse import urlsplit

from kms.address import Address as Address
from kms.contract import Settings

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """Where challenge connections may go and how they get there.

    `resolvers` empty: the system's. `allow` wins over `deny`, both over what is denied by default.
    """

    resolvers: tuple[Address, ...] = ()
    http01_port: int = 80
    tls_alpn01_port: int = 443
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerSettings(Settings):
    """All options of `kms-acme server`.

    `tls_certificate` and `tls_private_key` are both set or both absent; absent, the certificate comes from the Secret
    `serving_secret` of the release namespace. `peer_service` names the Service whose EndpointSlices list the other
    replicas; None: this server is alone. `maximum_orders` and `maximum_accounts` are how many there may be in the
    cluster. `http_url` is what certificates carry as the place of `http_listen`; None: `default_http_url`.
    `token_directory` is where the operator puts our ServiceAccount's token; None: as kubectl and pods have it.
    """

    listen: Address = Address("", 8443)
    http_listen: Address = Address("", 8080)
    http_url: str | None = None
    tls_certificate: Path | None = None
    tls_private_key: Path | None = None
    peer_service: str | None = None
    maximum_orders: int = 150_000
    maximum_accounts: int = 50_000
    token_directory: Path | None = None
    validation: ValidationSettings = ValidationSettings()


def default_http_url(external_url: str, http_listen: Address) -> str:
    """Where what is served without TLS is reached: on the host of the external URL.

    If that names a port, the server is reached directly, so on the port that it listens on; else by the standard ports.
    """
    parts = urlsplit(external_url)
    host = parts.netloc.removesuffix(f":{parts.port}")
    return f"http://{host}" if parts.port is None else f"http://{host}:{http_listen.port}"
