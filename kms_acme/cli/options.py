"""The options of the command line: each is also an environment variable, `KMS_ACME_<OPTION>`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from acme_server.settings import Network, ServerSettings, ValidationSettings
from kms.address import Address
from kms.contract import lease_name
from kms.resources.secret_names import SERVICE_NAME, serving_secret_name
from kms_operator.settings import OperatorSettings, ServerIdentity

DEFAULT_NAMESPACE = "kms-acme"
LOOPBACK = "127.0.0.1"
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class AddressType(click.ParamType[Address]):
    """`HOST:PORT`, `:PORT` for all interfaces, `[IPV6]:PORT`."""

    name = "[host]:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the address; wrong ones end the program with exit code 2."""
        if isinstance(value, Address):
            return value
        host, separator, port = str(value).rpartition(":")
        if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - ports
            self.fail(f"{value!r} is not an address; write HOST:PORT, or :PORT for all interfaces", param, ctx)
        return Address(host.removeprefix("[").removesuffix("]"), int(port))


class NetworkType(click.ParamType[Network]):
    """A CIDR block."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        """Parse the block; wrong ones end the program with exit code 2."""
        try:
            return ip_network(value)
        except ValueError as error:
            self.fail(f"{error}; write a block as in 10.0.0.0/8 or fd00::/8", param, ctx)


class ExternalURLType(click.ParamType[str]):
    """`https://host[:port]`: where clients reach the server, and the only source of the URLs that it hands out."""

    name = "url"

    def __init__(self, scheme: str = "https") -> None:
        self._scheme = scheme

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the URL; wrong ones end the program with exit code 2."""
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
    """An option whose environment variable follows from its name; the help shows it."""
    variable = "KMS_ACME_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, *names, envvar=variable, show_envvar=True, **attributes)


def _applied(command: _Command, options: tuple[Callable[[_Command], _Command], ...]) -> _Command:
    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(options), command)


def common(command: _Command) -> _Command:
    """Options of every command that talks to Kubernetes."""
    return _applied(
        command,
        (
            option(
                "--kubeconfig", type=click.Path(dir_okay=False), help="As for kubectl. In a pod: the ServiceAccount."
            ),
            option("--context", help="Context of the kubeconfig. Default: the current one."),
            option(
                "--namespace",
                default=release_namespace,
                help=f"Release namespace. Default: the pod's own, else {DEFAULT_NAMESPACE}.",
            ),
            option("--watch-namespace", "watch_namespaces", multiple=True, help="Repeatable. Default: all namespaces."),
            option("--log-format", type=click.Choice(["text", "json"]), help="Default: text on a terminal, else json."),
            option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"]),
                default="info",
                show_default=True,
                help="The least that is logged.",
            ),
        ),
    )


def shared(*, required: bool) -> Callable[[_Command], _Command]:
    """Options that server and operator must be given alike."""

    def decorate(command: _Command) -> _Command:
        return _applied(
            command,
            (
                option(
                    "--external-url",
                    type=ExternalURLType(),
                    required=required,
                    help="Where clients reach the server, as in https://acme.example.com: the only source of the URLs"
                    " that are handed out."
                    + ("" if required else " Default: https://localhost and the port of --listen."),
                ),
                option(
                    "--serving-secret",
                    help="Secret of the release namespace with the server's own certificate, which the operator makes."
                    " Default: --service-name and -serving.",
                ),
                option(
                    "--service-name",
                    default=SERVICE_NAME,
                    show_default=True,
                    help="Service in front of the server. Its name goes into the serving certificate, and what this"
                    " installation has once, as its nonce key, is named after it.",
                ),
            ),
        )

    return decorate


def server_options(command: _Command, *, host: str = "") -> _Command:
    """Options of the ACME server; `host` is where it listens by default."""
    return _applied(
        command,
        (
            option(
                "--listen",
                type=AddressType(),
                default=f"{host}:8443",
                show_default=True,
                help="HTTPS, for ACME clients.",
            ),
            option(
                "--http-listen",
                type=AddressType(),
                default=f"{host}:8080",
                show_default=True,
                help="HTTP, for revocation lists and certificates of CAs, and nothing else.",
            ),
            option(
                "--http-url",
                type=ExternalURLType("http"),
                help="Where --http-listen is reached, as certificates say it. Default: the host of --external-url, on"
                " port 80, or on that of --http-listen if --external-url names a port.",
            ),
            option(
                "--tls-certificate",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="PEM, reloaded when it changes. Default: the certificate in --serving-secret.",
            ),
            option(
                "--tls-private-key",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="PEM, goes with --tls-certificate.",
            ),
            option(
                "--dns-server",
                "dns_servers",
                type=AddressType(),
                multiple=True,
                metavar="HOST:PORT",
                help="Resolver for validation. Repeatable. Default: the system's.",
            ),
            option("--http01-port", type=click.IntRange(1, 65535), default=80, help="Other than 80: only for tests."),
            option("--tls-alpn01-port", type=click.IntRange(1, 65535), default=443, help="Other than 443: likewise."),
            option(
                "--validation-allow",
                type=NetworkType(),
                multiple=True,
                help="Challenges may lead there, and IP addresses there be certified, whatever is denied. Repeatable.",
            ),
            option(
                "--validation-deny",
                type=NetworkType(),
                multiple=True,
                help="Challenge connections may not go there. Repeatable. Loopback, link-local, multicast and metadata"
                " addresses are always denied unless allowed.",
            ),
            option(
                "--maximum-orders",
                type=click.IntRange(min=1),
                default=150_000,
                show_default=True,
                help="Orders that may be kept; beyond, new ones are refused. One takes about 5 kB of etcd.",
            ),
            option(
                "--maximum-accounts",
                type=click.IntRange(min=1),
                default=50_000,
                show_default=True,
                help="Accounts that may be kept; beyond, new ones are refused.",
            ),
            option(
                "--peer-service",
                help="Service whose EndpointSlices list the other replicas. Default: this server is alone.",
            ),
        ),
    )


def server_options_on_loopback(command: _Command) -> _Command:
    """Options of an ACME server for development: other machines cannot reach it unless an address says so."""
    return server_options(command, host=LOOPBACK)


def operator_options(command: _Command) -> _Command:
    """Options of the operator alone."""
    return _applied(
        command,
        (
            option(
                "--cert-manager-namespace",
                default="cert-manager",
                show_default=True,
                help="Where cert-manager reads the Secrets of ClusterIssuers (its --cluster-resource-namespace).",
            ),
            option(
                "--cluster-issuers-from",
                multiple=True,
                help="Repeatable. Namespace whose profiles may make ClusterIssuers, and Issuers elsewhere."
                " The release namespace is always one.",
            ),
            option(
                "--trust-from",
                multiple=True,
                help="Repeatable. Namespace whose CertificateAuthorities may publish roots elsewhere (spec.trust)."
                " The release namespace is always one.",
            ),
        ),
    )


def server_in_pod(command: _Command) -> _Command:
    """Options of a server that shares its pod with the operator, which hands it an identity of its own."""
    return _applied(
        command,
        (
            option(
                "--token-directory",
                type=click.Path(file_okay=False, path_type=Path),
                help="In a pod: where the operator puts the token that the server acts under (its"
                " --server-token-directory). The server waits for the first. Default: the pod's ServiceAccount.",
            ),
        ),
    )


def operator_in_pod(command: _Command) -> _Command:
    """Options of an operator that hands the server beside it an identity."""
    return _applied(
        command,
        (
            option(
                "--server-service-account",
                help="ServiceAccount of the release namespace whose tokens the server is to act under.",
            ),
            option(
                "--server-token-directory",
                type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
                help="Where to put these tokens, each before the last one ends; goes with --server-service-account.",
            ),
        ),
    )


def metrics_option(default: str, flag: str = "--metrics-listen") -> Callable[[_Command], _Command]:
    """Where /metrics, /healthz and /readyz are served."""
    return option(
        flag, type=AddressType(), default=default, show_default=True, help="HTTP: /metrics, /healthz and /readyz."
    )


def release_namespace() -> str:
    """The namespace of the pod we run in, else the default one."""
    try:
        return POD_NAMESPACE.read_text().strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE


def server_settings(values: Mapping[str, Any]) -> ServerSettings:
    """Settings of the server from the values of its options; raises click.UsageError where two do not go together."""
    if (values["tls_certificate"] is None) != (values["tls_private_key"] is None):
        raise click.UsageError("--tls-certificate and --tls-private-key go together: give both or neither.")
    token_directory = values.get("token_directory")
    if token_directory is not None and values["kubeconfig"] is not None:
        raise click.UsageError("--token-directory and --kubeconfig exclude each other: give one of them.")
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
    """Settings of the operator from the values of its options; raises click.UsageError as above."""
    return OperatorSettings(
        **_settings_of_both(values),
        lease_name=lease_name(values["service_name"], "operator"),
        server_identity=_server_identity(values),
        cert_manager_namespace=values["cert_manager_namespace"],
        cluster_issuers_from=values["cluster_issuers_from"],
        trust_from=values["trust_from"],
    )


def _settings_of_both(values: Mapping[str, Any]) -> dict[str, Any]:
    """The members of kms.contract.Settings."""
    names = ("external_url", "namespace", "watch_namespaces", "metrics_listen", "service_name", "context")
    return {name: values[name] for name in names} | {
        "serving_secret": values["serving_secret"] or serving_secret_name(values["service_name"]),
        "kubeconfig": kubeconfig(values),
    }


def _server_identity(values: Mapping[str, Any]) -> ServerIdentity | None:
    service_account, directory = values["server_service_account"], values["server_token_directory"]
    if (service_account is None) != (directory is None):
        raise click.UsageError(
            "--server-service-account and --server-token-directory go together: give both or neither."
        )
    return None if directory is None else ServerIdentity(service_account, directory)


def kubeconfig(values: Mapping[str, Any]) -> str | None:
    """The kubeconfig that was asked for; KUBECONFIG is read here, so that nothing below depends on the environment."""
    return values["kubeconfig"] or os.environ.get("KUBECONFIG") or None
