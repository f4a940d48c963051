"""The settings of the ACME server. The command line builds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kms.address import Address, Network
from kms.connections import ConnectionLimits
from kms.contract import Settings


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """Which addresses validation may contact, and how.

    Without `resolvers` it uses those of the system. `allow` takes precedence over `deny`, and both over the default.
    """

    resolvers: tuple[Address, ...] = ()
    http01_port: int = 80
    tls_alpn01_port: int = 443
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerSettings(Settings):
    """All options of `kms-acme server`.

    `tls_certificate` and `tls_private_key` are both set or both None; without them the certificate comes from the
    Secret `serving_secret` of the release namespace. `peer_service` names the Service whose EndpointSlices list the
    other replicas; None: there are none. `http_url` is the URL of `http_listen` in certificates; None:
    `kms.contract.default_http_url`. `token_directory` is where the operator writes the token of the server's
    ServiceAccount; None: the server has an identity of its own.

    `maximum_orders`, `maximum_accounts` and `maximum_order_bytes`, which is what all orders take, are limits of the
    cluster, before etcd is full. `namespace_share` and `account_share`, from 0 to 1, are what one namespace may use of
    them, and one account of its namespace, each of what the others leave. `connections` limits those of
    each public port. `audit_log` is where the audit stream goes: a file, "-" for standard output, or "" for nowhere.
    With `list_profiles`, the page at `/` lists the profiles.
    """

    listen: Address = Address("", 8443)
    http_listen: Address = Address("", 8080)
    http_url: str | None = None
    tls_certificate: Path | None = None
    tls_private_key: Path | None = None
    peer_service: str | None = None
    maximum_orders: int = 120_000
    maximum_accounts: int = 50_000
    connections: ConnectionLimits = ConnectionLimits(maximum=2048)
    maximum_order_bytes: int = 640 * 2**20
    namespace_share: float = 0.5
    account_share: float = 0.5
    token_directory: Path | None = None
    validation: ValidationSettings = ValidationSettings()
    audit_log: str = ""
    list_profiles: bool = False
