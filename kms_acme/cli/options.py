"""Options of both programs. Each is also an environment variable, `KMS_ACME_<OPTION>`, as are those of one program."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from kms.contract import DEFAULT_HTTP_PORT, DELETION_RETENTION
from kms.resources.durations import format_duration, parse_duration
from kms.resources.secret_names import SERVICE_NAME, serving_secret_name
from kms_acme.cli.parameters import AddressType, DurationType, ExternalURLType

DEFAULT_NAMESPACE = "kms-acme"
LOOPBACK = "127.0.0.1"
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Command = TypeVar("Command", bound=Callable[..., Any])


def option(flag: str, *names: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option with the environment variable KMS_ACME_<OPTION>, shown in its help."""
    variable = "KMS_ACME_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, *names, envvar=variable, show_envvar=True, **attributes)


def maximum(flag: str, *, default: int, help: str) -> Callable[[Command], Command]:  # noqa: A002 - as click calls it
    """An option for a limit of at least 1."""
    return option(flag, type=click.IntRange(min=1), default=default, show_default=True, help=help)


def apply_options(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    """Add the options to the command. Its help lists them in this order."""
    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(options), command)


def cluster_options(command: Command) -> Command:
    """Options that name the cluster."""
    return apply_options(
        command,
        (
            option(
                "--kubeconfig",
                type=click.Path(dir_okay=False),
                help="Path to the kubeconfig file. Default: as for kubectl; in a pod, the ServiceAccount.",
            ),
            option("--context", help="Kubeconfig context to use. Default: the current context."),
        ),
    )


def common_options(command: Command) -> Command:
    """Options of every command that talks to Kubernetes."""
    return apply_options(
        command,
        (
            cluster_options,
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


def shared_options(*, required: bool) -> Callable[[Command], Command]:
    """Options that must have the same value for server and operator."""

    def decorate(command: Command) -> Command:
        return apply_options(
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
                    "--http-url",
                    type=ExternalURLType("http"),
                    help="Base URL at which the server serves revocation lists and CA certificates (--http-listen), as"
                    " written into certificates. Default: the host of --external-url with port 80, or with the port of"
                    f" --http-listen (operator: {DEFAULT_HTTP_PORT}) if --external-url has a port.",
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
                option(
                    "--pkcs11-module",
                    "pkcs11_modules",
                    multiple=True,
                    help="Absolute path of a PKCS #11 module that may be loaded for keys of CertificateAuthorities"
                    " (spec.internal.keyStore.pkcs11). Repeatable. Default: none.",
                ),
            ),
        )

    return decorate


def metrics_option(default: str, flag: str = "--metrics-listen") -> Callable[[Command], Command]:
    """The address that serves /metrics, /healthz and /readyz."""
    of = " of the operator" if flag == "--operator-metrics-listen" else ""
    return option(
        flag,
        type=AddressType(),
        default=default,
        show_default=True,
        help=f"HTTP address for metrics and probes{of}.",
    )


def release_namespace(file: Path = POD_NAMESPACE) -> str:
    """The namespace of this pod, otherwise the default namespace."""
    try:
        return file.read_text().strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE


def settings_of_both(values: Mapping[str, Any]) -> dict[str, Any]:
    """The members of kms.contract.Settings, which server and operator have in common."""
    names = ("external_url", "namespace", "watch_namespaces", "metrics_listen", "service_name", "context")
    return {name: values[name] for name in (*names, "pkcs11_modules")} | {
        "serving_secret": values["serving_secret"] or serving_secret_name(values["service_name"]),
        "deletion_retention": parse_duration(values["deletion_retention"]),
        "kubeconfig": kubeconfig(values),
    }


def kubeconfig(values: Mapping[str, Any]) -> str | None:
    """The kubeconfig of the option, otherwise of KUBECONFIG. No other module reads the environment."""
    return values["kubeconfig"] or os.environ.get("KUBECONFIG") or None


def passphrase() -> str | None:
    """The passphrase of a backup in KMS_ACME_PASSPHRASE; None if it is not set."""
    return os.environ.get("KMS_ACME_PASSPHRASE") or None
