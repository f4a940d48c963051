"""What all commands that only read have in common: their options, their exit codes, and connections.

Exit codes: 0 for success, 1 for a failure at run time, 2 for wrong usage, 3 if the answer is no.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from kms_acme.cli import options
from kms_acme.cli.completion import complete_namespaces, complete_objects
from kms_acme.cli.parameters import NamespaceName, NetworkType, ObjectName

ANSWER_IS_NO = 3
"""The exit code if something was refused, is wrong, or expires."""

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


def reading_options(command: Command) -> Command:
    """Options of commands that read: the cluster, the namespace, and colours."""
    return options.apply_options(
        command,
        (
            options.cluster_options,
            click.option(
                "-n",
                "--namespace",
                type=NamespaceName(),
                shell_complete=complete_namespaces,
                # Names in other options are read with it, in whatever order they are written.
                is_eager=True,
                help="Namespace to list, and of objects whose name comes without one. Default: all namespaces.",
            ),
            color_option,
        ),
    )


def profile_option(*, required: bool) -> Callable[[Command], Command]:
    """The option -p."""
    return click.option(
        "-p",
        "--profile",
        type=ObjectName(uses_namespace_option=True),
        required=required,
        shell_complete=complete_objects("CertificateProfile"),
        help="CertificateProfile that the client uses.",
    )


def credential_option(default: str) -> Callable[[Command], Command]:
    """The option --credential; its help says what is taken by default."""
    return click.option(
        "--credential",
        type=ObjectName(uses_namespace_option=True),
        shell_complete=complete_objects("EABCredential"),
        help=f"EABCredential of the client's account. Default: {default}.",
    )


def validation_options(command: Command) -> Command:
    """The options of the server that decide which addresses it certifies."""
    return options.apply_options(
        command,
        (
            click.option(
                "--validation-allow",
                type=NetworkType(),
                multiple=True,
                help="As for the server: addresses it certifies although denied.",
            ),
            click.option(
                "--validation-deny", type=NetworkType(), multiple=True, help="As for the server: addresses it denies."
            ),
        ),
    )


def color_option(command: Command) -> Command:
    """The option that turns colours off."""
    return click.option(
        "--no-color",
        is_flag=True,
        expose_value=False,
        callback=_without_color,
        is_eager=True,
        help="Print no colours. They are only printed on a terminal, and not if NO_COLOR is set.",
    )(command)


def output_option(*formats: str) -> Callable[[Command], Command]:
    """The option -o. The first format is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def _without_color(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
    if value or os.environ.get("NO_COLOR"):
        ctx.color = False


def run_with_cluster(values: Any, work: Callable[[Any], Awaitable[T]]) -> T:
    """Connect, do the work and disconnect. Errors of the API server end the program with exit code 1."""
    # Imported here, because not every command needs a cluster, and this takes half a second.
    from kms.cluster.client import Cluster  # noqa: PLC0415
    from kms.cluster.errors import ClusterError  # noqa: PLC0415

    async def run() -> T:
        cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
        try:
            return await work(cluster)
        finally:
            await cluster.close()

    try:
        return asyncio.run(run())
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
