"""The command `kms-acme certificates`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kms_acme.cli.completion import complete_objects
from kms_acme.cli.output import FORMATS, Column, Printer, Progress
from kms_acme.cli.parameters import DaysType, ObjectName
from kms_acme.cli.reading import ANSWER_IS_NO, output_option, reading_options, run_with_cluster

if TYPE_CHECKING:
    from kms.cluster.client import Cluster
    from kms.resources.kinds import Kind
    from kms_acme.certificates import Filter, Row


@click.command()
@reading_options
@output_option(*FORMATS)
@click.option(
    "-p",
    "--profile",
    type=ObjectName(uses_namespace_option=True),
    shell_complete=complete_objects("CertificateProfile"),
    help="Of this profile.",
)
@click.option(
    "--authority",
    type=ObjectName(uses_namespace_option=True),
    shell_complete=complete_objects("CertificateAuthority"),
    help="Of this CA.",
)
@click.option(
    "--account",
    type=ObjectName(uses_namespace_option=True),
    shell_complete=complete_objects("ACMEAccount"),
    help="Of this ACMEAccount.",
)
@click.option(
    "--credential",
    type=ObjectName(uses_namespace_option=True),
    shell_complete=complete_objects("EABCredential"),
    help="Of all accounts of this EABCredential.",
)
@click.option("--name", "pattern", help='With a name that matches, as in a policy: "*.example.com", 10.0.0.0/8.')
@click.option("--state", type=click.Choice(["valid", "revoked", "expired"]), help="In this state.")
@click.option("--expiring", type=DaysType(), help="Valid now, but not longer than this: 14d, 36h.")
@click.option(
    "--not-renewed",
    is_flag=True,
    help="Without a successor for the same names of the same profile, within --expiring of its end. Default: in the"
    " last third of its lifetime.",
)
@click.option(
    "--sort",
    type=click.Choice(["not-after", "issued", "name", "profile"]),
    help="Sort the list. Default: as it comes from the API server.",
)
def certificates(**values: Any) -> None:
    """List certificates.

    Orders are read page by page and printed as they come; --sort and --not-renewed print at the end. Certificates
    disappear from the list when their orders are deleted, some time after they have ended.

    Exit codes: 0; 1 if the list cannot be read; 2 for wrong usage, such as the name of a profile that does not exist; 3
    if --expiring or --not-renewed finds something.

    \b
    Examples:
        kms-acme certificates --expiring 14d --not-renewed
        kms-acme certificates -p pki/web --state valid -o csv >certificates.csv
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    from kms_acme.certificates import name_filter  # noqa: PLC0415 - not for --help

    try:
        name = name_filter(values["pattern"]) if values["pattern"] is not None else None
    except ValueError as error:
        raise click.UsageError(f"--name: {error}") from error
    printer: Printer[Row] = Printer(values["output"], _columns())
    unreadable = run_with_cluster(values, lambda cluster: _list(cluster, values, name, printer))
    printer.close()
    for each in unreadable:
        click.echo(f"ACMEOrder {each} cannot be read and is left out", err=True)
    if not printer.count and values["output"] in {"table", "wide"}:
        click.echo("No certificates.", err=True)
    is_alarm = printer.count and (values["expiring"] is not None or values["not_renewed"])
    raise SystemExit(ANSWER_IS_NO if is_alarm else 1 if unreadable else 0)


async def _list(cluster: Cluster, values: Any, name: Any, printer: Printer[Row]) -> list[str]:
    """Print the certificates, and return the names of orders that cannot be read."""
    from kms.clock import system_clock  # noqa: PLC0415 - not for --help
    from kms_acme.certificates import (  # noqa: PLC0415
        Filter,
        accounts_of,
        authority_names,
        list_orders,
        select_rows,
        sort_rows,
    )

    namespace, credential = values["namespace"], values["credential"]
    chosen: Filter = Filter(
        profile=values["profile"],
        account=values["account"],
        accounts=await accounts_of(cluster, credential, namespace) if credential is not None else None,
        authority=values["authority"],
        name=name,
        state=values["state"],
        expiring=values["expiring"],
        due=values["not_renewed"] and values["expiring"] is None,
    )
    unreadable: list[str] = []
    progress = Progress("orders")
    rows = select_rows(
        list_orders(
            cluster,
            chosen,
            namespace,
            on_unreadable=lambda each: unreadable.append(f"{each.metadata.namespace}/{each.metadata.name}"),
        ),
        chosen,
        authorities=await authority_names(cluster, namespace),
        not_renewed=values["not_renewed"],
        now=system_clock(),
        on_read=progress,
    )
    if values["sort"] is None:
        async for row in rows:
            progress.clear()
            printer.add(row)
    else:
        for row in sort_rows([row async for row in rows], values["sort"]):
            printer.add(row)
    progress.clear()
    if not printer.count:
        await _check_names(cluster, values)
    return unreadable


async def _check_names(cluster: Cluster, values: Any) -> None:
    """Distinguish a wrong name from one without certificates. Those of a deleted profile are listed for a time."""
    from kms.resources.kinds import ACCOUNTS, AUTHORITIES, CREDENTIALS, PROFILES  # noqa: PLC0415 - not for --help
    from kms_acme.missing import find_missing  # noqa: PLC0415

    kinds: dict[str, Kind[Any]] = {
        "profile": PROFILES,
        "authority": AUTHORITIES,
        "account": ACCOUNTS,
        "credential": CREDENTIALS,
    }
    for option, kind in kinds.items():
        if values[option] is not None and (problem := await find_missing(cluster, kind, values[option])) is not None:
            raise click.BadParameter(problem, param_hint=f"--{option}")


def _columns() -> tuple[Column[Row], ...]:
    return (
        Column("profile", lambda row: f"{row.namespace}/{row.profile}"),
        Column("names", lambda row: row.names),
        Column("serial", lambda row: row.serial),
        Column("notAfter", lambda row: row.not_after),
        Column("state", lambda row: row.state, color=_color),
        Column("revocation", lambda row: row.revocation, wide=True),
        Column("account", lambda row: f"{row.namespace}/{row.account}", wide=True),
        Column("clients", lambda row: row.clients, wide=True),
        Column("authority", lambda row: row.authority and f"{row.namespace}/{row.authority}", wide=True),
        Column("issued", lambda row: row.issued, wide=True),
        Column("order", lambda row: f"{row.namespace}/{row.order}", wide=True),
    )


def _color(row: Row) -> str | None:
    return None if row.state == "valid" else "red"
