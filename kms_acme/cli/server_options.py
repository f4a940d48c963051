"""Options of the ACME server, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from acme_server.settings import WORKER_PORTS, ServerSettings, ValidationSettings
from kms.connections import ConnectionLimits
from kms_acme.cli.options import LOOPBACK, Command, apply_options, maximum, option, settings_of_both
from kms_acme.cli.parameters import AddressType, DNSServerType, NetworkType

_PORTS = 2**16


def server_options(command: Command, *, host: str = "") -> Command:
    """Options of the ACME server; `host` is where it listens by default."""
    return apply_options(
        command,
        (
            option(
                "--listen",
                type=AddressType(),
                default=f"{host}:8443",
                show_default=True,
                help="HTTPS address for ACME clients.",
            ),
            option(
                "--http-listen",
                type=AddressType(),
                default=f"{host}:8080",
                show_default=True,
                help="HTTP address for revocation lists and CA certificates.",
            ),
            option(
                "--tls-certificate",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Path to the serving certificate (PEM), reloaded on change. Default: the one in --serving-secret.",
            ),
            option(
                "--tls-private-key",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Path to the private key (PEM) of --tls-certificate.",
            ),
            option(
                "--dns-server",
                "dns_servers",
                type=DNSServerType(),
                multiple=True,
                help="DNS server to use for validation. Repeatable. Default: the system's resolvers.",
            ),
            option(
                "--http01-port",
                type=click.IntRange(1, 65535),
                default=80,
                show_default=True,
                help="Port for http-01 validation (testing only).",
            ),
            option(
                "--tls-alpn01-port",
                type=click.IntRange(1, 65535),
                default=443,
                show_default=True,
                help="Port for tls-alpn-01 validation (testing only).",
            ),
            option(
                "--validation-allow",
                type=NetworkType(),
                multiple=True,
                help="Network that validation may contact even if it is denied. Repeatable. IP addresses in it can be"
                " certified.",
            ),
            option(
                "--validation-deny",
                type=NetworkType(),
                multiple=True,
                help="Network that validation must not contact. Repeatable. Loopback, link-local, multicast and cloud"
                " metadata addresses are always denied unless --validation-allow includes them.",
            ),
            maximum(
                "--maximum-orders",
                default=120_000,
                help="Maximum number of stored orders; further ones are refused. An order takes about 4 kB in etcd.",
            ),
            maximum(
                "--maximum-order-bytes",
                default=640 * 2**20,
                help="Maximum size of all stored orders, in bytes of etcd; further ones are refused.",
            ),
            option(
                "--namespace-share",
                type=click.IntRange(1, 100),
                default=50,
                show_default=True,
                help="Percentage of the orders, of their bytes and of the accounts that one namespace may use, counted"
                " from what the other namespaces leave. 100: all.",
            ),
            option(
                "--account-share",
                type=click.IntRange(1, 100),
                default=50,
                show_default=True,
                help="Percentage of the orders of a namespace, and of their bytes, that one account may use, counted"
                " from what the other accounts leave; and of these and of the accounts, that clients of one other"
                " namespace may use together. 100: all.",
            ),
            maximum(
                "--maximum-accounts",
                default=50_000,
                help="Maximum number of stored accounts; further ones are refused.",
            ),
            maximum(
                "--maximum-connections",
                default=2048,
                help="Maximum number of connections of each public port. For another one, the connection that has been"
                " idle longest is closed.",
            ),
            option(
                "--maximum-connections-per-address",
                type=click.IntRange(min=1),
                default=None,
                help="Maximum number of connections from an IPv4 address or an IPv6 /64 network. Default: an eighth of"
                " --maximum-connections.",
            ),
            option(
                "--proxy-network",
                "proxy_networks",
                type=NetworkType(),
                multiple=True,
                help="Network of proxies, load balancers or nodes that forward many clients. Repeatable."
                " --maximum-connections-per-address does not apply to it.",
            ),
            option(
                "--list-profiles",
                type=click.BOOL,
                default=False,
                show_default=True,
                help="Whether the page at / lists all profiles, with descriptions and directories, for everybody who"
                " can reach the server.",
            ),
            option(
                "--audit-log",
                default="",
                metavar="-|PATH",
                help="Write the audit stream, one JSON line for each decision, to standard output (-) or to a file,"
                " which is opened again after it was renamed. Default: no audit stream.",
            ),
            option(
                "--peer-service",
                help="Service whose EndpointSlices list the other replicas. Default: the server is the only replica.",
            ),
        ),
    )


def server_options_on_loopback(command: Command) -> Command:
    """Options of an ACME server for development: other machines cannot reach it unless an address says so."""
    return server_options(command, host=LOOPBACK)


def server_in_pod(command: Command) -> Command:
    """Options of a server that shares its pod with the operator and gets its token from there."""
    return apply_options(
        command,
        (
            option(
                "--token-directory",
                type=click.Path(file_okay=False, path_type=Path),
                help="Directory with the server's ServiceAccount token, written by the operator"
                " (--server-token-directory). The server waits for the first token. Default: the pod's ServiceAccount.",
            ),
            option(
                "--workers",
                type=click.IntRange(1, 64),
                default=1,
                show_default=True,
                help="Processes that serve, each with one core, and memory of its own. Each has a port for metrics and"
                " other replicas: that of --metrics-listen, and 10 more for each further one.",
            ),
        ),
    )


def server_settings(values: Mapping[str, Any]) -> ServerSettings:
    """Settings of the server from its options. Raises click.UsageError if options contradict each other."""
    if (values["tls_certificate"] is None) != (values["tls_private_key"] is None):
        raise click.UsageError("--tls-certificate and --tls-private-key require each other: set both or neither.")
    token_directory = values.get("token_directory")
    if token_directory is not None and values["kubeconfig"] is not None:
        raise click.UsageError("--token-directory and --kubeconfig are mutually exclusive.")
    workers, port = values.get("workers", 1), values["metrics_listen"].port
    if workers > 1 and not 0 < port + (workers - 1) * WORKER_PORTS < _PORTS:
        raise click.UsageError(f"--workers: there are no {workers} ports from that of --metrics-listen ({port}) on.")
    return ServerSettings(
        **settings_of_both(values),
        listen=values["listen"],
        http_listen=values["http_listen"],
        http_url=values["http_url"],
        tls_certificate=values["tls_certificate"],
        tls_private_key=values["tls_private_key"],
        peer_service=values["peer_service"],
        maximum_orders=values["maximum_orders"],
        maximum_accounts=values["maximum_accounts"],
        connections=ConnectionLimits(
            maximum=values["maximum_connections"],
            per_address=values["maximum_connections_per_address"],
            proxies=values["proxy_networks"],
        ),
        maximum_order_bytes=values["maximum_order_bytes"],
        namespace_share=values["namespace_share"] / 100,
        account_share=values["account_share"] / 100,
        token_directory=token_directory,
        audit_log=values["audit_log"],
        list_profiles=values["list_profiles"],
        workers=workers,
        validation=ValidationSettings(
            resolvers=values["dns_servers"],
            http01_port=values["http01_port"],
            tls_alpn01_port=values["tls_alpn01_port"],
            allow=values["validation_allow"],
            deny=values["validation_deny"],
        ),
    )
