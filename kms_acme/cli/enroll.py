"""The command `kms-acme enroll`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from kms.enrollment_guide import CLIENTS, NotSupported, guide, script
from kms_acme.cli.reading import ANSWER_IS_NO, credential_option, profile_option, reading_options, run_with_cluster


@click.command()
@reading_options
@profile_option(required=True)
@credential_option("words that you replace")
@click.option("--client", type=click.Choice(CLIENTS), required=True, help="ACME client.")
@click.option("--name", "names", multiple=True, help="Name of the certificate. Repeatable. Default: an example.")
@click.option("--email", help="Contact of the account. Default: an example.")
@click.option("--ca-file", help="Where the client keeps the CA of the server. Default: /etc/ssl/kms-acme/ca.crt.")
@click.option("--reveal", is_flag=True, help="Print the HMAC key. Default: the command that reads it from its Secret.")
def enroll(**values: Any) -> None:
    """Print the commands or the configuration with which a client enrolls, as a script.

    Sentences are comments; files are written by the script. The HMAC key of the credential is a secret: with --reveal
    it is printed, otherwise the script reads it from the Secret when it runs.

    Exit codes: 0; 1 if something is not known or may not be read; 2 for wrong usage; 3 if the client cannot prove names
    as the profile requires.

    \b
    Examples:
        kms-acme enroll -p pki/web --credential team-a/web --client certbot --name web.apps.example.com
        kms-acme enroll -p pki/web --credential team-a/web --client caddy --reveal
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    from kms_acme.enroll import NotKnown, read_facts  # noqa: PLC0415 - not for --help

    if values["reveal"] and values["credential"] is None:
        raise click.UsageError("--reveal goes with --credential.")
    profile, credential, reveal = values["profile"], values["credential"], values["reveal"]
    try:
        facts = run_with_cluster(values, lambda cluster: read_facts(cluster, profile, credential, reveal=reveal))
    except NotKnown as error:
        raise click.ClickException(str(error)) from error
    given = {
        "names": values["names"],
        "email": values["email"],
        "authority_file": values["ca_file"],
    }
    enrollment = replace(facts.enrollment, **{name: value for name, value in given.items() if value})
    try:
        printed = script(guide(values["client"], enrollment))
    except NotSupported as error:
        click.echo(f"{error}.", err=True)
        raise SystemExit(ANSWER_IS_NO) from error
    for each in facts.missing:
        click.echo(f"Not known: {each}.", err=True)
    click.echo(printed, nl=False)
