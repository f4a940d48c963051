"""The command `kms-acme console`."""

from __future__ import annotations

import importlib.util
import webbrowser
from typing import TYPE_CHECKING, Any

import click

from kms_acme.cli.reading import reading_options, run_with_cluster, validation_options

if TYPE_CHECKING:
    from kms.cluster.client import Cluster


@click.command()
@reading_options
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1. Default: a free one.")
@click.option("--no-browser", is_flag=True, help="Only print the address, do not open it.")
@validation_options
def console(**values: Any) -> None:
    """Show certificates, orders, CAs, profiles and accounts in a browser.

    Serves pages on 127.0.0.1 of this machine and opens them, until Ctrl-C. They show what your kubeconfig may read, and
    change nothing. The printed address works once, for one browser. --namespace shows one namespace only, for users
    without rights in others.

    Exit codes: 0 when you stop it; 1 if it cannot start; 2 for wrong usage.

    \b
    Examples:
        kms-acme console
        kms-acme console -n pki --no-browser --port 8888
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    if importlib.util.find_spec("jinja2") is None:
        raise click.ClickException("kms-acme console needs jinja2: pip install 'kms-acme[console]'")
    from kms import logs  # noqa: PLC0415 - not for --help
    from kms_acme.console.server import CannotListen  # noqa: PLC0415

    # What cannot be read is said on the pages.
    logs.configure("text", "critical")
    try:
        run_with_cluster(values, lambda cluster: _serve(cluster, values))
    except CannotListen as error:
        raise click.ClickException(str(error)) from error
    click.echo("Stopped.", err=True)


async def _serve(cluster: Cluster, values: Any) -> None:
    from acme_server.settings import ValidationSettings  # noqa: PLC0415 - as above
    from acme_server.validation.net.address_filter import AddressFilter  # noqa: PLC0415
    from kms.clock import system_clock  # noqa: PLC0415
    from kms_acme.console.server import serve_until_stopped  # noqa: PLC0415

    def announce(url: str) -> None:
        click.echo(url)
        click.echo("The address works once. Press Ctrl-C to stop.", err=True)
        if not values["no_browser"] and not webbrowser.open(url):
            click.echo("No browser could be started: open the address yourself.", err=True)

    settings = ValidationSettings(allow=values["validation_allow"], deny=values["validation_deny"])
    where = [
        f"context {values['context']}" if values["context"] else "",
        f"namespace {values['namespace']}" if values["namespace"] else "",
    ]
    await serve_until_stopped(
        cluster,
        values["namespace"],
        port=values["port"],
        about=", ".join(filter(None, where)) or "all namespaces",
        clock=system_clock,
        objection=AddressFilter(settings).objection,
        on_ready=announce,
    )
