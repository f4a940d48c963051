"""The command `kms-acme doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from kms.contract import service_account_name
from kms.pki.quoting import printable
from kms.resources.secret_names import SERVICE_NAME
from kms_acme.cli import options
from kms_acme.cli.parameters import NamespaceName
from kms_acme.cli.reading import ANSWER_IS_NO, color_option, output_option, run_with_cluster

_COLORS = {"error": "red", "warning": "yellow", "note": None}


@click.command()
@options.cluster_options
@color_option
@output_option("text", "json")
@click.option(
    "-n",
    "--namespace",
    type=NamespaceName(),
    default=options.DEFAULT_NAMESPACE,
    show_default=True,
    help="Release namespace.",
)
@click.option("--service-name", default=SERVICE_NAME, show_default=True, help="As for the server: its Service.")
@click.option(
    "--server-account", default=service_account_name("server"), show_default=True, help="ServiceAccount of the server."
)
@click.option(
    "--operator-account",
    default=service_account_name("operator"),
    show_default=True,
    help="ServiceAccount of the operator.",
)
@click.option("--offline", is_flag=True, help="Do not try directories and revocation lists from this machine.")
def doctor(**values: Any) -> None:
    """Look an installation over: what is wrong, why it matters, and what to do.

    Looks at kinds, rights of both programs, Leases, conditions, clocks, directories and revocation lists, ends of CAs
    and of the serving certificate, Secrets without an owner, credentials that nobody uses, and policies that allow
    everything. Writes nothing; asks the API server for rights with SubjectAccessReviews. What you may not read is a
    note.

    Exit codes: 0 if there are notes at most; 1 if the cluster does not answer, or if you may not read what is asked
    for; 2 for wrong usage; 3 if there are errors or warnings.

    \b
    Examples:
        kms-acme doctor
        kms-acme doctor -n kms-acme -o json --offline
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    from kms.clock import system_clock  # noqa: PLC0415 - not for --help
    from kms_acme.doctor import examine  # noqa: PLC0415
    from kms_acme.doctor.examination import take_snapshot  # noqa: PLC0415
    from kms_acme.install import manifests  # noqa: PLC0415

    release = values["namespace"]
    accounts = {"server": values["server_account"], "operator": values["operator_account"]}
    users = {program: f"system:serviceaccount:{release}:{name}" for program, name in accounts.items()}
    snapshot = run_with_cluster(
        values,
        lambda cluster: take_snapshot(
            cluster,
            release=release,
            service=values["service_name"],
            manifests=manifests(),
            users=users,
            try_urls=not values["offline"],
        ),
    )
    findings = examine(snapshot, now=system_clock())
    bad = sum(each.level != "note" for each in findings)
    if values["output"] == "json":
        click.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            click.echo(click.style(printable(f"{each.level}: {each.about} {each.what}"), fg=_COLORS[each.level]))
            click.echo(printable(f"  Why: {each.why}"))
            click.echo(printable(f"  Do:  {each.do}"))
        click.echo(_summary(bad, len(snapshot.unread)))
    raise SystemExit(ANSWER_IS_NO if bad else 1 if snapshot.unread else 0)


def _summary(bad: int, unread: int) -> str:
    left_out = f"{unread} {'thing was' if unread == 1 else 'things were'} not looked at"
    if bad:
        return f"{bad} {'problem' if bad == 1 else 'problems'}{f'; {left_out}' if unread else ''}."
    return f"No problem found, but {left_out}." if unread else "All is well."
