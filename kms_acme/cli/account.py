"""The commands `kms-acme account suspend`, `resume` and `deactivate`: options, confirmation and output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from kms.clock import system_clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Unreadable
from kms_acme.accounts import Action, Selection, change_all, filter_affected, find_accounts, require_not_ended
from kms_acme.cli import options
from kms_acme.cli.confirmation import Wording, confirm_and_change, print_unreadable
from kms_acme.cli.parameters import NamespaceName, ObjectName
from kms_acme.status_changes import NotChanged

_DONE = {"suspend": "suspended", "resume": "resumed", "deactivate": "deactivated"}


@click.group()
def account() -> None:
    """Suspend, resume or deactivate ACME accounts.

    Every server acts on the change within a second. To list accounts, their states and credentials:

        kubectl get acmeaccounts -A

    The kubeconfig's user needs the ClusterRole kms-acme-account-manager.
    """


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all three commands have."""
    return options.apply_options(
        command,
        (
            options.cluster_options,
            click.option("--account", type=ObjectName(), help="Select this ACMEAccount."),
            click.option("--credential", type=ObjectName(), help="Select all accounts of this EABCredential."),
            click.option(
                "--namespace",
                type=NamespaceName(),
                help="Select all accounts of the EABCredentials in this namespace, and of ready-made Issuers there.",
            ),
            click.option(
                "--profile-namespace",
                type=NamespaceName(),
                help="With --credential or --namespace: search only the profiles of this namespace, for users without"
                " rights in others. Default: all namespaces.",
            ),
            click.option("--dry-run", is_flag=True, help="Only list the accounts that would be changed."),
            click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
        ),
    )


@account.command()
@_selecting
def suspend(**values: Any) -> None:
    """Stop accounts until they are resumed.

    A suspended account obtains no certificates, proves no names, changes neither its key nor its contacts, and revokes
    no certificates of other accounts. It can still read what it has, download its certificates, revoke them, and be
    deactivated. Its certificates stay valid; to revoke them, use `kms-acme revoke --account`.

    A client with a valid EABCredential can open another account. To prevent that, also set `spec.suspended: true` in
    the credential.

    Exit codes: 0 if all accounts were suspended; 1 if one could not be suspended, none was found, or you declined; 2
    for wrong usage.

    \b
    Examples:
        kms-acme account suspend --account pki/NAME
        kms-acme account suspend --credential team-a/web --dry-run
        kms-acme account suspend --namespace team-a --yes
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    _command("suspend", values)


@account.command()
@_selecting
def resume(**values: Any) -> None:
    """Let suspended accounts act again.

    This also lifts a suspension that an EABCredential had when it was deleted, which its accounts keep after the
    credential is made again. It does not lift that of a credential that is suspended now: set `spec.suspended: false`
    there. A deactivated account cannot be resumed.

    Exit codes: 0 if all accounts were resumed; 1 if one could not be resumed, none was found, or you declined; 2 for
    wrong usage.

    \b
    Examples:
        kms-acme account resume --account pki/NAME
        kms-acme account resume --credential team-a/web
    """  # noqa: D301 - as above
    _command("resume", values)


@account.command()
@_selecting
def deactivate(**values: Any) -> None:
    """End accounts. Deactivation cannot be undone.

    A deactivated account cannot do anything any more, and its key opens no other account of the profile. Its
    certificates stay valid; to revoke them, use `kms-acme revoke --account`. A client with a valid EABCredential can
    open another account with another key; to prevent that, set `spec.suspended: true` in the credential.

    Exit codes: 0 if all accounts were deactivated; 1 if one could not be deactivated, none was found, or you declined;
    2 for wrong usage.

    \b
    Examples:
        kms-acme account deactivate --account pki/NAME
        kms-acme account deactivate --namespace team-a --dry-run
    """  # noqa: D301 - as above
    _command("deactivate", values)


def _command(action: Action, values: Any) -> None:
    selected = [name for name in ("account", "credential", "namespace") if values[name] is not None]
    if len(selected) != 1:
        raise click.UsageError("Set exactly one of --account, --credential and --namespace.")
    if values["account"] is not None and values["profile_namespace"] is not None:
        raise click.UsageError("--profile-namespace goes with --credential or --namespace.")
    selection = Selection(
        account=values["account"],
        credential=values["credential"],
        clients=values["namespace"],
        profiles=values["profile_namespace"],
    )
    try:
        raise SystemExit(asyncio.run(_run(action, selection, values)))
    except (ClusterError, NotChanged) as error:
        raise click.ClickException(str(error)) from error


async def _run(action: Action, selection: Selection, values: Any) -> int:
    wording = Wording(action, _DONE[action], "account", declined="Nothing was changed.")
    cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
    try:
        unreadable: list[Unreadable] = []
        found = await find_accounts(cluster, selection, on_unreadable=unreadable.append)
        print_unreadable(unreadable, "ACMEAccount", wording.done)
        accounts = filter_affected(found, action)
        if selection.account is not None and action != "deactivate":
            require_not_ended(found[0])
        if len(accounts) < len(found):
            number = wording.count(len(found))
            click.echo(f"{len(found) - len(accounts)} of {number} unchanged: already {wording.done}, or ended.")
        if not accounts:
            return 1 if unreadable else 0
        change = partial(change_all, cluster, accounts, action, clock=system_clock)
        exit_code = await confirm_and_change(
            accounts, lambda print_result: change(on_done=print_result), line=_line, wording=wording, values=values
        )
        return exit_code or (1 if unreadable and not values["dry_run"] else 0)
    finally:
        await cluster.close()


def _line(account: ACMEAccount) -> str:
    """The account, its profile, its credential and its contacts."""
    parts = [
        f"{account.metadata.namespace}/{account.metadata.name}",
        account.spec.profile_ref.name,
        *(["/".join(account.credential)] if account.credential else []),
        ",".join(account.status.contact),
    ]
    return " ".join(each for each in parts if each)
