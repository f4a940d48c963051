"""The options of the command line: each is also an environment variable, `KMS_ACME_<OPTION>`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from acme_server.settings import ServerSettings, ValidationSettings
from kms.address import Address, Network
from kms.connections import ConnectionLimits
from kms.contract import DELETION_RETENTION, lease_name
from kms.resources.durations import format_duration, parse_duration
from kms.resources.secret_names import SERVICE_NAME, serving_secret_name
from kms_operator.settings import OperatorSettings, ServerIdentity

DEFAULT_NAMESPACE = "kms-acme"
LOOPBACK = "127.0.0.1"
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _parse_address(value: Any) -> Address | None:
    if isinstance(value, Address):
        return value
    host, separator, port = str(value).rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - ports
        return None
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class AddressType(click.ParamType[Address]):
    """`HOST:PORT`, `:PORT` for all interfaces, `[IPV6]:PORT`."""

    name = "[host]:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the address. An invalid one ends the program with exit code 2."""
        address = _parse_address(value)
        if address is None:
            self.fail(f"{value!r} is not an address; write HOST:PORT, or :PORT for all interfaces", param, ctx)
        return address


class DNSServerType(click.ParamType[Address]):
    """`IP:PORT`: the name of a DNS server could not be looked up without a DNS server."""

    name = "ip:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the address. An invalid one ends the program with exit code 2."""
        address = _parse_address(value)
        try:
            ip_address(address.host if address else "")
        except ValueError:
            address = None
        if address is None:
            self.fail(f"{value!r} is not the address of a DNS server; write IP:PORT, such as 10.0.0.53:53", param, ctx)
        return address


class NetworkType(click.ParamType[Network]):
    """A CIDR block."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        """Parse the block. An invalid one ends the program with exit code 2."""
        try:
            return ip_network(value)
        except ValueError as error:
            self.fail(f"{error}; write a CIDR block such as 10.0.0.0/8 or fd00::/8", param, ctx)


class DurationType(click.ParamType[str]):
    """A duration of Go and Kubernetes: `168h`, `1h30m`, `0s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the duration. An invalid one ends the program with exit code 2."""
        try:
            parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class ExternalURLType(click.ParamType[str]):
    """`https://host[:port]`: the base of all URLs that the server hands out."""

    name = "url"

    def __init__(self, scheme: str = "https") -> None:
        self._scheme = scheme

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the URL. An invalid one ends the program with exit code 2."""
        url = str(value).rstrip("/")
        try:
            parts = urlsplit(url)
            well_formed = parts.scheme == self._scheme and parts.hostname and parts.port != 0
        except ValueError:
            well_formed = False
        scheme = self._scheme
        if not well_formed or url != f"{scheme}://{parts.netloc}" or "@" in parts.netloc:
            self.fail(f"{value!r} is not of the form {scheme}://HOST or {scheme}://HOST:PORT", param, ctx)
        return url.lower()


def option(flag: str, *names: str, **attributes: Any) -> Callable[[_Command], _Command]:
    """An option with the environment variable KMS_ACME_<OPTION>, shown in its help."""
    variable = "KMS_ACME_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, *names, envvar=variable, show_envvar=True, **attributes)


def _apply(command: _Command, options: tuple[Callable[[_Command], _Command], ...]) -> _Command:
    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(options), command)


def common_options(command: _Command) -> _Command:
    """Options of every command that talks to Kubernetes."""
    return _apply(
        command,
        (
            option(
                "--kubeconfig",
                type=click.Path(dir_okay=False),
                help="Path to the kubeconfig file. Default: as for kubectl; in a pod, the ServiceAccount.",
            ),
            option("--context", help="Kubeconfig context to use. Default: the current context."),
            option(
                "--namespace",
                default=release_namespace,
                help=f"Release namespace. Default: the namespace of the pod, otherwise {DEFAULT_NAMESPACE}.",
            ),
            option(
                "--watch-namespace",
                "watch_namespaces",
                multiple=True,
                help="Namespace to watch. Repeatable. Default: all namespaces.",
            ),
            option(
                "--log-format",
                type=click.Choice(["text", "json"]),
                help="Log format. Default: text on a terminal, otherwise json.",
            ),
            option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"]),
                default="info",
                show_default=True,
                help="Minimum log level.",
            ),
        ),
    )


def shared_options(*, required: bool) -> Callable[[_Command], _Command]:
    """Options that must have the same value for server and operator."""

    def decorate(command: _Command) -> _Command:
        return _apply(
            command,
            (
                option(
                    "--external-url",
                    type=ExternalURLType(),
                    required=required,
                    help="Base URL at which clients reach the server, such as https://acme.example.com. All URLs that"
                    " the server hands out begin with it."
                    + ("" if required else " Default: https://localhost with the port of --listen."),
                ),
                option(
                    "--serving-secret",
                    help="Secret in the release namespace that holds the serving certificate. The operator creates it."
                    " Default: <service-name>-serving.",
                ),
                option(
                    "--service-name",
                    default=SERVICE_NAME,
                    show_default=True,
                    help="Service in front of the server. The serving certificate contains its name, and the Secrets"
                    " and Leases of the installation are named after it.",
                ),
                option(
                    "--deletion-retention",
                    type=DurationType(),
                    default=format_duration(DELETION_RETENTION),
                    show_default=True,
                    help="How long keys, accounts and orders are kept after their CertificateAuthority,"
                    " CertificateProfile or EABCredential was deleted. An object of the same namespace and name has"
                    " them again.",
                ),
            ),
        )

    return decorate


def server_options(command: _Command, *, host: str = "") -> _Command:
    """Options of the ACME server; `host` is where it listens by default."""
    return _apply(
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
                "--http-url",
                type=ExternalURLType("http"),
                help="Base URL of --http-listen, as written into certificates. Default: the host of --external-url with"
                " port 80, or with the port of --http-listen if --external-url has a port.",
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
            option(
                "--maximum-orders",
                type=click.IntRange(min=1),
                default=120_000,
                show_default=True,
                help="Maximum number of stored orders; further ones are refused. An order takes about 4 kB in etcd.",
            ),
            option(
                "--maximum-order-bytes",
                type=click.IntRange(min=1),
                default=640 * 2**20,
                show_default=True,
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
                " from what the other accounts leave. 100: all.",
            ),
            option(
                "--maximum-accounts",
                type=click.IntRange(min=1),
                default=50_000,
                show_default=True,
                help="Maximum number of stored accounts; further ones are refused.",
            ),
            option(
                "--maximum-connections",
                type=click.IntRange(min=1),
                default=2048,
                show_default=True,
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
                "--peer-service",
                help="Service whose EndpointSlices list the other replicas. Default: the server is the only replica.",
            ),
        ),
    )


def server_options_on_loopback(command: _Command) -> _Command:
    """Options of an ACME server for development: other machines cannot reach it unless an address says so."""
    return server_options(command, host=LOOPBACK)


def operator_options(command: _Command) -> _Command:
    """Options of the operator alone."""
    return _apply(
        command,
        (
            option(
                "--cert-manager-namespace",
                default="cert-manager",
                show_default=True,
                help="Namespace from which cert-manager reads the Secrets of ClusterIssuers (its"
                " --cluster-resource-namespace).",
            ),
            option(
                "--cluster-issuers-from",
                multiple=True,
                help="Namespace whose profiles may have ClusterIssuers and Issuers in other namespaces. Repeatable."
                " The release namespace is always included.",
            ),
            option(
                "--trust-from",
                multiple=True,
                help="Namespace whose CertificateAuthorities may publish their roots in other namespaces (spec.trust)."
                " Repeatable. The release namespace is always included.",
            ),
            option(
                "--open-profiles-from",
                multiple=True,
                help="Namespace whose profiles may be open: externalAccountBinding Optional or Disabled, or"
                " ownershipValidation Skipped. Repeatable; * stands for all namespaces. The release namespace is always"
                " included.",
            ),
            option(
                "--maximum-profiles-per-namespace",
                type=click.IntRange(min=1),
                default=100,
                show_default=True,
                help="Maximum number of CertificateProfiles of one namespace that work.",
            ),
            option(
                "--maximum-secrets",
                type=click.IntRange(min=1),
                default=5_000,
                show_default=True,
                help="Maximum number of keys of CertificateAuthorities and EABCredentials in the release namespace.",
            ),
            option(
                "--maximum-secrets-per-namespace",
                type=click.IntRange(min=1),
                default=1_000,
                show_default=True,
                help="Maximum number of keys of the CertificateAuthorities and EABCredentials of one namespace.",
            ),
        ),
    )


def server_in_pod(command: _Command) -> _Command:
    """Options of a server that shares its pod with the operator and gets its token from there."""
    return _apply(
        command,
        (
            option(
                "--token-directory",
                type=click.Path(file_okay=False, path_type=Path),
                help="Directory with the server's ServiceAccount token, written by the operator"
                " (--server-token-directory). The server waits for the first token. Default: the pod's ServiceAccount.",
            ),
        ),
    )


def operator_in_pod(command: _Command) -> _Command:
    """Options of an operator that hands tokens to the server in its pod."""
    return _apply(
        command,
        (
            option(
                "--server-service-account",
                help="ServiceAccount in the release namespace for which the operator requests the server's tokens.",
            ),
            option(
                "--server-token-directory",
                type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
                help="Directory for the tokens of --server-service-account. Each is replaced before it expires.",
            ),
        ),
    )


def metrics_option(default: str, flag: str = "--metrics-listen") -> Callable[[_Command], _Command]:
    """The address that serves /metrics, /healthz and /readyz."""
    return option(
        flag, type=AddressType(), default=default, show_default=True, help="HTTP address for metrics and probes."
    )


def release_namespace(file: Path = POD_NAMESPACE) -> str:
    """The namespace of this pod, otherwise the default namespace."""
    try:
        return file.read_text().strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE


def server_settings(values: Mapping[str, Any]) -> ServerSettings:
    """Settings of the server from its options. Raises click.UsageError if options contradict each other."""
    if (values["tls_certificate"] is None) != (values["tls_private_key"] is None):
        raise click.UsageError("--tls-certificate and --tls-private-key require each other: set both or neither.")
    token_directory = values.get("token_directory")
    if token_directory is not None and values["kubeconfig"] is not None:
        raise click.UsageError("--token-directory and --kubeconfig are mutually exclusive.")
    return ServerSettings(
        **_settings_of_both(values),
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
        validation=ValidationSettings(
            resolvers=values["dns_servers"],
            http01_port=values["http01_port"],
            tls_alpn01_port=values["tls_alpn01_port"],
            allow=values["validation_allow"],
            deny=values["validation_deny"],
        ),
    )


def operator_settings(values: Mapping[str, Any]) -> OperatorSettings:
    """Settings of the operator from its options. Raises click.UsageError if options contradict each other."""
    return OperatorSettings(
        **_settings_of_both(values),
        lease_name=lease_name(values["service_name"], "operator"),
        server_identity=_server_identity(values),
        cert_manager_namespace=values["cert_manager_namespace"],
        cluster_issuers_from=values["cluster_issuers_from"],
        trust_from=values["trust_from"],
        open_profiles_from=values["open_profiles_from"],
        maximum_profiles_per_namespace=values["maximum_profiles_per_namespace"],
        maximum_secrets=values["maximum_secrets"],
        maximum_secrets_per_namespace=values["maximum_secrets_per_namespace"],
    )


def _settings_of_both(values: Mapping[str, Any]) -> dict[str, Any]:
    """The members of kms.contract.Settings."""
    names = ("external_url", "namespace", "watch_namespaces", "metrics_listen", "service_name", "context")
    return {name: values[name] for name in names} | {
        "serving_secret": values["serving_secret"] or serving_secret_name(values["service_name"]),
        "deletion_retention": parse_duration(values["deletion_retention"]),
        "kubeconfig": kubeconfig(values),
    }


def _server_identity(values: Mapping[str, Any]) -> ServerIdentity | None:
    service_account, directory = values["server_service_account"], values["server_token_directory"]
    if (service_account is None) != (directory is None):
        raise click.UsageError(
            "--server-service-account and --server-token-directory require each other: set both or neither."
        )
    return None if directory is None else ServerIdentity(service_account, directory)


def kubeconfig(values: Mapping[str, Any]) -> str | None:
    """The kubeconfig of the option, otherwise of KUBECONFIG. No other module reads the environment."""
    return values["kubeconfig"] or os.environ.get("KUBECONFIG") or None
