"""The command `kms-acme policy test`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kms.clock import system_clock
from kms.pki.quoting import printable
from kms.resources.durations import format_duration, parse_duration
from kms_acme.cli.parameters import DurationType
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
    from kms.resources.meta import Key
    from kms_acme.configuration import Configuration
    from kms_acme.policy_test import Request, Verdict


@click.group()
def policy() -> None:
    """Try out policies."""


@policy.command()
@reading_options
@profile_option(required=False)
@credential_option("one without rules of its own")
@click.option("--order-profile", help="Profile that the client chooses in the directory (meta.profiles).")
@click.option("--ip", "addresses", multiple=True, help="IP address to request. Repeatable.")
@click.option(
    "--csr",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificate request (PEM or DER) to check. Without names, its own names are requested.",
)
@click.option("--duration", type=DurationType(), help="Validity to request. Default: that of the profile.")
@click.option(
    "-f",
    "--filename",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory with manifests to use instead of the cluster.",
)
@click.option(
    "--cases",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with requests and the expected answers, to run as a test suite.",
)
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the results of --cases as JUnit XML."
)
@validation_options
@output_option("text", "json")
@click.argument("names", nargs=-1)
def test(**values: Any) -> None:
    """Tell whether a certificate for NAMES would be granted, and by which rule.

    The answer is that of the server, as far as profile, policy, CA and credential decide it. Proofs, CAA records,
    quotas and keys of revoked certificates are left out. With --filename, no cluster is needed.

    Exit codes: 0 if it would be granted, or all cases pass; 1 if there is no answer, because an object is missing or
    invalid; 2 for wrong usage; 3 if it would be refused, or a case fails.

    \b
    Examples:
        kms-acme policy test -p pki/web web.apps.example.com
        kms-acme policy test -f manifests/ --cases cases.yaml --junit results.xml
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    if values["cases"] is None and not (values["names"] or values["addresses"] or values["csr"]):
        raise click.UsageError("Name what to request: NAMES, --ip, --csr, or --cases.")
    if values["cases"] is None and values["profile"] is None:
        raise click.UsageError("Set --profile, or --cases with a file that names profiles.")
    if values["cases"] is not None and (values["names"] or values["addresses"] or values["csr"]):
        raise click.UsageError("--cases names the requests; leave out NAMES, --ip and --csr.")
    if values["junit"] is not None and values["cases"] is None:
        raise click.UsageError("--junit goes with --cases.")
    raise SystemExit(_run_cases(values) if values["cases"] is not None else _run_one(values))


def _run_one(values: Any) -> int:
    from kms_acme.policy_test import Request, Undecided, sentences  # noqa: PLC0415 - not for --help

    request = Request(
        profile=values["profile"],
        names=(*values["names"], *values["addresses"]),
        credential=values["credential"],
        csr=values["csr"].read_bytes() if values["csr"] is not None else None,
        duration=_duration(values["duration"]),
        order_profile=values["order_profile"],
    )
    try:
        verdict = _evaluator(values, [request])(request)
    except Undecided as error:
        raise click.ClickException(str(error)) from error
    if values["output"] == "json":
        click.echo(json.dumps(_document(verdict), indent=2))
    else:
        for position, line in enumerate(map(printable, sentences(verdict))):
            click.echo(_colored(line, verdict.is_granted) if position == 0 else line)
    return 0 if verdict.is_granted else ANSWER_IS_NO


def _run_cases(values: Any) -> int:
    from kms_acme.policy_cases import BadCases, junit, parse_cases, run_case, summary  # noqa: PLC0415 - as above

    file: Path = values["cases"]
    try:
        cases = parse_cases(
            file.read_text(encoding="utf-8"),
            profile=values["profile"],
            credential=values["credential"],
            read=lambda name: (file.parent / name).read_bytes(),
        )
    except (BadCases, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from error
    evaluate = _evaluator(values, [each.request for each in cases])
    results = [run_case(each, evaluate) for each in cases]
    if values["junit"] is not None:
        values["junit"].write_bytes(junit(results))
    if values["output"] == "json":
        shown = [{"case": each.case.title, "passed": each.passed, "answer": each.why} for each in results]
        click.echo(json.dumps(shown, indent=2))
    else:
        for each in results:
            click.echo(_colored(f"{'ok  ' if each.passed else 'FAIL'} {each.case.title}", each.passed))
            if not each.passed:
                click.echo(printable(f"     {each.why}"))
        click.echo(summary(results))
    return 0 if all(each.passed for each in results) else ANSWER_IS_NO


def _evaluator(values: Any, requests: Sequence[Request]) -> Callable[[Request], Verdict]:
    """What decides about these requests: the manifests of a folder, or the cluster."""
    from acme_server.settings import ValidationSettings  # noqa: PLC0415 - as above
    from acme_server.validation.net.address_filter import AddressFilter  # noqa: PLC0415
    from kms_acme.configuration import read_configuration  # noqa: PLC0415
    from kms_acme.manifests import BadManifest, read_manifests  # noqa: PLC0415
    from kms_acme.policy_test import evaluate  # noqa: PLC0415

    settings = ValidationSettings(allow=values["validation_allow"], deny=values["validation_deny"])
    answer = partial(evaluate, now=system_clock(), objection=AddressFilter(settings).objection)
    if values["folder"] is not None:
        try:
            manifests = read_manifests(values["folder"], namespace=values["namespace"] or "default")
        except BadManifest as error:
            raise click.ClickException(str(error)) from error
        return lambda request: answer(manifests, request)
    credentials: dict[str, set[Key]] = {}
    for each in requests:
        credentials.setdefault(each.profile[0], set()).update({each.credential} if each.credential else ())

    async def read(cluster: Cluster) -> dict[str, Configuration]:
        return {home: await read_configuration(cluster, home, sorted(keys)) for home, keys in credentials.items()}

    configurations = run_with_cluster(values, read)
    return lambda request: answer(configurations[request.profile[0]], request)


def _document(verdict: Verdict) -> dict[str, Any]:
    from kms_acme.policy_test import allowing_rule  # noqa: PLC0415 - as above
    from kms_acme.remedies import remedies  # noqa: PLC0415

    document: dict[str, Any] = {"granted": verdict.is_granted, "profile": "/".join(verdict.request.profile)}
    if verdict.refused is not None:
        return document | {
            "type": str(verdict.refused.type),
            "problems": list(verdict.problems),
            "remedies": list(remedies(verdict.refused, credential=verdict.request.credential)),
        }
    return document | {
        "names": [{"name": each.value, "rule": allowing_rule(verdict.profile, each)} for each in verdict.names],
        "policy": verdict.profile.policy.name,
        "authority": f"{verdict.profile.namespace}/{verdict.profile.resource.issuer_name}",
        "duration": format_duration(verdict.request.duration or verdict.profile.duration),
    }


def _duration(text: str | None) -> timedelta | None:
    return parse_duration(text) if text is not None else None


def _colored(line: str, good: bool) -> str:  # noqa: FBT001 - a colour for each answer
    return click.style(line, fg="green" if good else "red")
