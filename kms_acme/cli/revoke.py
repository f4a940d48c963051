"""The command `kms-acme revoke`: options, confirmation and output."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from acme_server.certificates.revocation_reasons import ADMINISTRATOR_REASONS
from kms.clock import system_clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.pki.crl import UNSPECIFIED
from kms.resources.meta import Unreadable
from kms.resources.orders import ACMEOrder
from kms_acme.cli import options
from kms_acme.cli.parameters import ObjectName, is_name
from kms_acme.revoke import NotRevoked, Selection, filter_revocable, find_orders, revoke_all, serial_number

_SHOWN = 20
"""Number of certificates listed before the confirmation."""


class SerialNumber(click.ParamType[tuple[str | None, str]]):
    """`SERIAL`, or `NAMESPACE/SERIAL`."""

    name = "[namespace/]serial"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, str]:
        """Parse the serial number. An invalid one ends the program with exit code 2."""
        namespace, _, serial = str(value).rpartition("/")
        if namespace and not is_name(namespace):
            self.fail(f"{namespace!r} is not a namespace", param, ctx)
        try:
            return namespace or None, serial_number(serial)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Reason(click.ParamType[str]):
    """A revocation reason, in any case."""

    name = "reason"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the reason as RFC 5280 spells it. An unknown one ends the program with exit code 2."""
        spelled = {each.lower(): each for each in ADMINISTRATOR_REASONS}
        if str(value).lower() not in spelled:
            self.fail(f"{value!r} is not one of {', '.join(ADMINISTRATOR_REASONS)}", param, ctx)
        return spelled[str(value).lower()]


@click.command()
@options.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False),
    help="Path to the kubeconfig file. Default: as for kubectl; in a pod, the ServiceAccount.",
)
@options.option("--context", help="Kubeconfig context to use. Default: the current context.")
@click.option("--serial", type=SerialNumber(), help="Revoke the certificate with this serial number (hexadecimal).")
@click.option("--order", type=ObjectName(), help="Revoke the certificate of this ACMEOrder.")
@click.option("--account", type=ObjectName(), help="Revoke all certificates of this ACMEAccount.")
@click.option(
    "--reason",
    type=Reason(),
    default=UNSPECIFIED,
    show_default=True,
    help=f"Revocation reason: {', '.join(ADMINISTRATOR_REASONS)} (RFC 5280, 5.3.1). keyCompromise also blocks the"
    " key for new certificates and accounts, permanently.",
)
@click.option("--dry-run", is_flag=True, help="Only list the certificates that would be revoked.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def revoke(**values: Any) -> None:
    """Revoke a certificate, or all certificates of an account. Revocation cannot be undone.

    The certificate appears on the revocation list of its CA within seconds. To list certificates and their accounts:

        kubectl get acmeorders -A -o wide

    The kubeconfig's user needs the ClusterRole kms-acme-revoker. Exit codes: 0 if all certificates were revoked; 1 if
    one could not be revoked, none was found, or you declined; 2 for wrong usage.

    \b
    Examples:
        kms-acme revoke --serial 5F:3A:91:0C --reason keyCompromise
        kms-acme revoke --order pki/abcdefghijklmnopqrstuvwxyz234567 --reason superseded
        kms-acme revoke --account pki/NAME --reason cessationOfOperation --dry-run
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    chosen = [name for name in ("serial", "order", "account") if values[name] is not None]
    if len(chosen) != 1:
        raise click.UsageError("Set exactly one of --serial, --order and --account.")
    try:
        raise SystemExit(asyncio.run(_run(Selection(**{chosen[0]: values[chosen[0]]}), values)))
    except (ClusterError, NotRevoked) as error:
        raise click.ClickException(str(error)) from error


async def _run(selection: Selection, values: Any) -> int:
    cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
    try:
        unreadable: list[Unreadable] = []
        found = await find_orders(cluster, selection, on_unreadable=unreadable.append)
        for each in unreadable:
            name = f"{each.metadata.namespace}/{each.metadata.name}"
            click.echo(f"ACMEOrder {name} cannot be read and is not revoked: {each}", err=True)
        orders = filter_revocable(found, values["reason"], now=system_clock())
        if len(orders) < len(found):
            click.echo(f"{len(found) - len(orders)} of {len(found)} were revoked before or have expired.")
        if not orders:
            return 1 if unreadable else 0
        _show(orders)
        if values["dry_run"]:
            click.echo(f"{_count(orders)} would be revoked ({values['reason']}).")
            return 0
        if not values["yes"] and not click.confirm(f"Revoke {_count(orders)} ({values['reason']})?"):
            click.echo("Nothing was revoked.")
            return 1
        return await _revoke(cluster, orders, values["reason"]) or (1 if unreadable else 0)
    finally:
        await cluster.close()


async def _revoke(cluster: Cluster, orders: Sequence[ACMEOrder], reason: str) -> int:
    done = 0

    def print_result(order: ACMEOrder, error: str | None) -> None:
        nonlocal done
        done += 1
        click.echo(f"[{done}/{len(orders)}] {_line(order)}: {error or 'revoked'}", err=error is not None)

    failures = await revoke_all(cluster, orders, reason, clock=system_clock, on_done=print_result)
    click.echo(f"{len(orders) - failures} of {_count(orders)} revoked.")
    return 1 if failures else 0


def _show(orders: Sequence[ACMEOrder]) -> None:
    for each in orders[:_SHOWN]:
        click.echo(_line(each))
    if len(orders) > _SHOWN:
        click.echo(f"and {len(orders) - _SHOWN} more")


def _line(order: ACMEOrder) -> str:
    names = ",".join(each.value for each in order.spec.identifiers)
    return f"{order.metadata.namespace}/{order.metadata.name} {order.status.serial_number} {names}"


def _count(orders: Sequence[ACMEOrder]) -> str:
    return "1 certificate" if len(orders) == 1 else f"{len(orders)} certificates"
