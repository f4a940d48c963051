"""The command `kms-acme revoke`: options, confirmation and output."""

from __future__ import annotations

import asyncio
from functools import partial
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
from kms_acme.cli.confirmation import Wording, confirm_and_change, print_unreadable
from kms_acme.cli.parameters import ObjectName, is_name
from kms_acme.pending_revocations import describe_pending, find_pending
from kms_acme.revoke import Selection, filter_revocable, find_orders, revoke_all, serial_number
from kms_acme.status_changes import NotChanged


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
@options.cluster_options
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
@click.option(
    "--list-pending",
    is_flag=True,
    help="Only list revocations that external CAs have yet to carry out, and how to do so.",
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
        kms-acme revoke --list-pending
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    if values["list_pending"]:
        _list_pending(values)
        return
    chosen = [name for name in ("serial", "order", "account") if values[name] is not None]
    if len(chosen) != 1:
        raise click.UsageError("Set exactly one of --serial, --order, --account and --list-pending.")
    try:
        raise SystemExit(asyncio.run(_run(Selection(**{chosen[0]: values[chosen[0]]}), values)))
    except (ClusterError, NotChanged) as error:
        raise click.ClickException(str(error)) from error


def _list_pending(values: Any) -> None:
    if any(values[name] is not None for name in ("serial", "order", "account")):
        raise click.UsageError("--list-pending lists revocations of all certificates; leave the other options out.")
    try:
        asyncio.run(_print_pending(values))
    except ClusterError as error:
        raise click.ClickException(str(error)) from error


async def _print_pending(values: Any) -> None:
    cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
    try:
        unreadable: list[Unreadable] = []
        found = await find_pending(cluster, now=system_clock(), on_unreadable=unreadable.append)
        print_unreadable(unreadable, "ACMEOrder", "listed")
        for each in found:
            click.echo(describe_pending(*each))
        if not found:
            click.echo("No revocation is pending.")
    finally:
        await cluster.close()


async def _run(selection: Selection, values: Any) -> int:
    reason = values["reason"]
    wording = Wording("revoke", "revoked", "certificate", declined="Nothing was revoked.", detail=f" ({reason})")
    cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
    try:
        unreadable: list[Unreadable] = []
        found = await find_orders(cluster, selection, on_unreadable=unreadable.append)
        print_unreadable(unreadable, "ACMEOrder", wording.done)
        orders = filter_revocable(found, reason, now=system_clock())
        if len(orders) < len(found):
            click.echo(f"{len(found) - len(orders)} of {len(found)} were revoked before or have expired.")
        if not orders:
            return 1 if unreadable else 0
        change = partial(revoke_all, cluster, orders, reason, clock=system_clock)
        exit_code = await confirm_and_change(
            orders, lambda print_result: change(on_done=print_result), line=_line, wording=wording, values=values
        )
        return exit_code or (1 if unreadable and not values["dry_run"] else 0)
    finally:
        await cluster.close()


def _line(order: ACMEOrder) -> str:
    names = ",".join(each.value for each in order.spec.identifiers)
    return f"{order.metadata.namespace}/{order.metadata.name} {order.status.serial_number} {names}"
