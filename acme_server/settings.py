"""The settings of the ACME server. The command line builds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kms.address import Address, Network
from kms.connections import ConnectionLimits
from kms.contract import Settings

WORKER_PORTS = 10
"""From the metrics port of one worker to that of the next; the port beside the first one is the operator's."""
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to instead


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

    `workers` is the number of processes in the container, and `worker` the number of this one, from 0. Each has a port
    of its own for metrics, probes and other replicas: that of `metrics_listen`, and WORKER_PORTS more for each further
    worker. For `turns`, which all workers share, see kms.logs.TurnHandler.
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
    workers: int = 1
    worker: int = 0
    turns: int | None = None

    def of_worker(self, number: int) -> ServerSettings:
        """The settings of one worker. Together, the workers hold as many connections as one server would."""
        limits = self.connections
        return replace(
            self,
            worker=number,
            metrics_listen=self._of_worker(self.metrics_listen.host, number),
            connections=replace(
                limits,
                maximum=_part(limits.maximum, self.workers),
                per_address=_part(limits.share, self.workers),
            ),
        )

    def worker_addresses(self) -> tuple[Address, ...]:
        """Where the workers of this container reach each other, in the order of their numbers; none if there is one."""
        if self.workers == 1:
            return ()
        host = _LOOPBACK.get(self.metrics_listen.host, self.metrics_listen.host)
        return tuple(self._of_worker(host, number) for number in range(self.workers))

    def _of_worker(self, host: str, number: int) -> Address:
        return Address(host, self.metrics_listen.port + (number - self.worker) * WORKER_PORTS)


def _part(whole: int, parts: int) -> int:
    return max(1, -(-whole // parts))
