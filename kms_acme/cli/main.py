"""The command `kms-acme`, also the plugin `kubectl kms`.

Exit codes: 0 for success, 1 for a failure at run time, 2 for wrong usage, 3 if the answer is no.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import click

from kms import logs, stop_signals
from kms.contract import default_http_url
from kms_acme.cli import options
from kms_acme.cli.lazy import LazyGroup
from kms_acme.cli.operator_options import operator_in_pod, operator_options, operator_settings
from kms_acme.cli.server_options import server_in_pod, server_options, server_options_on_loopback, server_settings


def _account() -> click.Command:
    from kms_acme.cli.account import account  # noqa: PLC0415 - each command loads what it needs

    return account


def _ca() -> click.Command:
    from kms_acme.cli.ca import ca  # noqa: PLC0415 - as above

    return ca


def _certificates() -> click.Command:
    from kms_acme.cli.certificates import certificates  # noqa: PLC0415 - as above

    return certificates


def _completion() -> click.Command:
    from kms_acme.cli.completion import completion  # noqa: PLC0415 - as above

    return completion


def _console() -> click.Command:
    from kms_acme.cli.console import console  # noqa: PLC0415 - as above

    return console


def _doctor() -> click.Command:
    from kms_acme.cli.doctor import doctor  # noqa: PLC0415 - as above

    return doctor


def _enroll() -> click.Command:
    from kms_acme.cli.enroll import enroll  # noqa: PLC0415 - as above

    return enroll


def _explain() -> click.Command:
    from kms_acme.cli.explain import explain  # noqa: PLC0415 - as above

    return explain


def _policy() -> click.Command:
    from kms_acme.cli.policy import policy  # noqa: PLC0415 - as above

    return policy


def _revoke() -> click.Command:
    from kms_acme.cli.revoke import revoke  # noqa: PLC0415 - as above

    return revoke


@click.group(
    cls=LazyGroup,
    lazy={
        "account": _account,
        "ca": _ca,
        "certificates": _certificates,
        "completion": _completion,
        "console": _console,
        "doctor": _doctor,
        "enroll": _enroll,
        "explain": _explain,
        "policy": _policy,
        "revoke": _revoke,
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Options of server, operator and dev can also be set as environment variables: KMS_ACME_<OPTION>.",
)
def main() -> None:
    """Serve ACME (RFC 8555) from the private PKI of a Kubernetes cluster."""


@main.command()
@options.common_options
@options.shared_options(required=True)
@server_options
@server_in_pod
@options.metrics_option(":9090")
def server(**values: Any) -> None:
    """Run the ACME server."""
    settings = server_settings(values)
    logs.configure(values["log_format"], values["log_level"])
    with stop_signals.blocked():
        # Imported here, so that each command loads its own program only.
        from acme_server.main import run  # noqa: PLC0415
        from acme_server.workers import run_workers  # noqa: PLC0415

        sys.exit(run(settings) if settings.workers == 1 else run_workers(settings))


@main.command()
@options.common_options
@options.shared_options(required=True)
@operator_options
@operator_in_pod
@options.metrics_option(":9091")
def operator(**values: Any) -> None:
    """Run the operator, which reconciles CAs, policies, profiles and credentials."""
    settings = operator_settings(values)
    logs.configure(values["log_format"], values["log_level"])
    with stop_signals.blocked():
        from kms_operator.main import run  # noqa: PLC0415 - as above

        sys.exit(run(settings))


@main.command()
@options.common_options
@options.shared_options(required=False)
@server_options_on_loopback
@operator_options
@options.metrics_option(f"{options.LOOPBACK}:9090")
@options.metrics_option(f"{options.LOOPBACK}:9091", flag="--operator-metrics-listen")
@click.option("--install", is_flag=True, help="Apply the CRDs and RBAC rules first.")
def dev(**values: Any) -> None:
    """Run operator and server on this machine, for development.

    Both listen on the loopback address by default. Each program uses a token of its own ServiceAccount. The
    kubeconfig's user must be allowed to request these tokens and, with --install, to create CustomResourceDefinitions
    and ClusterRoles.
    """
    values["external_url"] = values["external_url"] or f"https://localhost:{values['listen'].port}"
    values["http_url"] = values["http_url"] or default_http_url(values["external_url"], values["http_listen"].port)
    server_settings(values)  # checks the combination of options before anything starts
    logs.configure(values["log_format"], values["log_level"])
    from kms_acme.dev import run  # noqa: PLC0415 - as above

    sys.exit(run(values))


@main.command()
@click.argument("url", required=False)
@click.option("--url-file", type=click.Path(dir_okay=False, path_type=Path), help="Read the URL from this file.")
@click.option(
    "--ca-certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CA certificate (PEM) to trust. Default: the system's CA certificates.",
)
@click.option("--wait", type=click.FloatRange(min=0), default=0.0, help="Seconds to keep trying. Default: try once.")
def check(url: str | None, url_file: Path | None, ca_certificate: Path | None, wait: float) -> None:
    """Check that the ACME directory at URL answers and issues a nonce.

    \b
    Examples:
        kms-acme check https://acme.example.com/acme/pki/web/directory
        kms-acme check --ca-certificate ca.crt --wait 60 https://acme.example.com/acme/pki/web/directory
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    if (url is None) == (url_file is None):
        raise click.UsageError("Set either URL or --url-file.")
    from kms_acme.check import CheckFailed, check_until  # noqa: PLC0415 - as above

    try:
        url = url or Path(url_file or "").read_text(encoding="utf-8").strip()
        check_until(url, authority=ca_certificate, wait=wait)
    except OSError as error:
        raise click.ClickException(f"--url-file {url_file} cannot be read: {error.strerror}") from error
    except CheckFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{url} works: a directory and a nonce")


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"kms-acme {importlib.metadata.version('kms-acme')}")


def kubectl_plugin() -> None:
    """Run as `kubectl kms`: kubectl runs the program kubectl-kms."""
    main(prog_name="kubectl kms")


def kubectl_completion() -> None:
    """Complete a line of `kubectl kms`: kubectl runs the program kubectl_complete-kms."""
    from kms_acme.cli.completion import completions_for_kubectl  # noqa: PLC0415 - each command loads what it needs

    click.echo("\n".join(completions_for_kubectl(main, sys.argv[1:])))
