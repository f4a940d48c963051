"""The commands `kms-acme explain order`, `account`, `certificate` and `name`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kms.pki.quoting import printable
from kms_acme.cli.completion import complete_objects
from kms_acme.cli.parameters import LooseName
from kms_acme.cli.reading import (
    ANSWER_IS_NO,
    credential_option,
    output_option,
    profile_option,
    reading_options,
    run_with_cluster,
    validation_options,
)

if TYPE_CHECKING:
    from kms.cluster.client import Cluster
    from kms_acme.explain import Story


@click.group()
def explain() -> None:
    """Tell the story of an order, an account, a certificate or a name: what happened, why, and what would help.

    Exit codes: 0 if all is well; 1 if the object does not exist or cannot be read; 2 for wrong usage; 3 if something
    was refused, has failed or has ended.
    """


@explain.command()
@reading_options
@output_option("text", "json")
@click.argument("name", type=LooseName(), shell_complete=complete_objects("ACMEOrder"))
def order(**values: Any) -> None:
    """Tell the story of an ACMEOrder: who ordered what, each proof, what came back, and why it failed.

    NAME is the last part of the URL of the order, which clients print and log.

    \b
    Examples:
        kms-acme explain order pki/abcdefghijklmnopqrstuvwxyz234567
        kms-acme explain order abcdefghijklmnopqrstuvwxyz234567 -o json
    """  # noqa: D301 - the backspace tells click not to rewrap the lines

    async def story(cluster: Cluster) -> Story:
        from kms_acme.lookups import find_object, order_story  # noqa: PLC0415 - not for --help

        return await order_story(cluster, await find_object(cluster, _kinds().ORDERS, *_home(values)), clock=_clock())

    _tell(values, story)


@explain.command()
@reading_options
@output_option("text", "json")
@click.argument("name", type=LooseName(), shell_complete=complete_objects("ACMEAccount"))
def account(**values: Any) -> None:
    """Tell the story of an ACMEAccount: its credential, its orders, and why it may not act.

    \b
    Examples:
        kms-acme explain account pki/NAME
        kms-acme explain account NAME -n pki
    """  # noqa: D301 - as above

    async def story(cluster: Cluster) -> Story:
        from kms_acme.lookups import account_story, find_object  # noqa: PLC0415 - as above

        return await account_story(cluster, await find_object(cluster, _kinds().ACCOUNTS, *_home(values)))

    _tell(values, story)


@explain.command()
@reading_options
@output_option("text", "json")
@click.argument("certificate")
def certificate(**values: Any) -> None:
    """Tell the story of a certificate, by its serial number (hexadecimal) or from a file (PEM or DER).

    \b
    Examples:
        kms-acme explain certificate 5F:3A:91:0C
        kms-acme explain certificate /etc/letsencrypt/live/web.apps.example.com/cert.pem
    """  # noqa: D301 - as above
    serial = _serial(values["certificate"])

    async def story(cluster: Cluster) -> Story:
        from kms_acme.lookups import find_order_of_serial, order_story  # noqa: PLC0415 - as above

        found = await find_order_of_serial(cluster, values["namespace"], serial)
        return await order_story(cluster, found, clock=_clock())

    _tell(values, story)


@explain.command()
@reading_options
@output_option("text", "json")
@profile_option(required=True)
@credential_option("each one of the profile, in turn")
@validation_options
@click.argument("name")
def name(**values: Any) -> None:
    """Tell whether a certificate for NAME would be issued, by which rule, for whom, and which certificates exist.

    \b
    Examples:
        kms-acme explain name web.apps.example.com -p pki/web
        kms-acme explain name 10.20.0.7 -p pki/hosts --credential team-a/web
    """  # noqa: D301 - as above

    async def story(cluster: Cluster) -> Story:
        from acme_server.settings import ValidationSettings  # noqa: PLC0415 - as above
        from acme_server.validation.net.address_filter import AddressFilter  # noqa: PLC0415
        from kms_acme.lookups import name_story  # noqa: PLC0415

        settings = ValidationSettings(allow=values["validation_allow"], deny=values["validation_deny"])
        return await name_story(
            cluster,
            values["name"],
            values["profile"],
            values["credential"],
            objection=AddressFilter(settings).objection,
            clock=_clock(),
        )

    _tell(values, story)


def _tell(values: Any, read: Callable[[Cluster], Awaitable[Story]]) -> None:
    """Print the story and end with its exit code."""
    from kms_acme.explain import told  # noqa: PLC0415 - as above
    from kms_acme.lookups import NotFound  # noqa: PLC0415
    from kms_acme.policy_test import Undecided  # noqa: PLC0415

    try:
        story = run_with_cluster(values, read)
    except (NotFound, Undecided) as error:
        raise click.ClickException(str(error)) from error
    if values["output"] == "json":
        lines = [
            {"time": each.at.isoformat() if each.at is not None else None, "text": each.text} for each in story.lines
        ]
        document = {"title": story.title, "lines": lines, "now": story.now, "remedies": list(story.remedies)}
        click.echo(json.dumps(document | {"well": story.is_well}, indent=2))
    else:
        for position, line in enumerate(map(printable, told(story))):
            click.echo(click.style(line, bold=True) if position == 0 else _colored(line, story))
    raise SystemExit(0 if story.is_well else ANSWER_IS_NO)


def _colored(line: str, story: Story) -> str:
    if line.endswith(story.now):
        return click.style(line, fg="green" if story.is_well else "red")
    return line


def _home(values: Any) -> tuple[str | None, str]:
    """The namespace, if there is one, and the name."""
    namespace, own = values["name"]
    return namespace or values["namespace"], own


def _serial(text: str) -> str:
    """The serial number that the text is, or that the certificate in the file of that name has."""
    from kms_acme.revoke import serial_number  # noqa: PLC0415 - as above

    file = Path(text)
    if not file.is_file():
        try:
            return serial_number(text)
        except ValueError as error:
            raise click.UsageError(f"{error}, or name a file.") from error
    from cryptography import x509  # noqa: PLC0415

    content = file.read_bytes()
    try:
        if b"-----BEGIN" in content:
            return f"{x509.load_pem_x509_certificate(content).serial_number:x}"
        return f"{x509.load_der_x509_certificate(content).serial_number:x}"
    except ValueError as error:
        raise click.ClickException(f"{file} has no certificate: {error}") from error


def _kinds() -> Any:
    from kms.resources import kinds  # noqa: PLC0415 - as above

    return kinds


def _clock() -> Any:
    from kms.clock import system_clock  # noqa: PLC0415 - as above

    return system_clock
