"""The commands `kms-acme ca`; `ca request` and `ca install` whole: options, confirmation and output."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from kms.clock import system_clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.pki.ca import InvalidAuthority, subject_key_id
from kms.pki.certificate import is_root
from kms.pki.keys import fingerprint, key_algorithm
from kms.pki.quoting import quoted
from kms.resources.compile import InvalidRules
from kms_acme.authorities import (
    MAXIMUM_CERTIFICATES,
    MAXIMUM_FILE,
    Chain,
    Requested,
    arrange,
    check,
    find_requested,
    install,
    read_certificates,
    wait_until_used,
)
from kms_acme.cli import options
from kms_acme.cli.backup import backup, restore
from kms_acme.cli.parameters import NamespaceName, ObjectName
from kms_acme.status_changes import NotChanged

REFUSED = 3
"""Exit code for a certificate that the CA cannot use."""
_TIME = "%Y-%m-%d %H:%M:%SZ"


@click.group()
def ca() -> None:
    """Certify a CA by a CA of yours, such as an offline root; back up all CAs, and restore them.

    A CA for `request` and `install` has "signedBy: Request" in spec.internal. The operator makes its key; the request
    leaves the cluster, and the certificate comes back.
    """


ca.add_command(backup)
ca.add_command(restore)


def _naming(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options that both commands have."""
    return options.apply_options(
        command,
        (
            options.cluster_options,
            click.option("-n", "--namespace", type=NamespaceName(), help="Namespace of the CertificateAuthority."),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0),
                default=60.0,
                show_default=True,
                help="Seconds to wait for the operator.",
            ),
            click.argument("name", metavar="[NAMESPACE/]NAME"),
        ),
    )


@ca.command()
@_naming
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write the request to. Default: standard output.",
)
def request(**values: Any) -> None:
    """Print the certificate request (PKCS #10, PEM) of a CA.

    It can be signed at any time: for the first certificate, for its renewal, and for a cross certificate. Subject and
    fingerprints go to standard error; compare them where the request is signed.

    Exit codes: 0 if the request was printed; 1 if there is none; 2 for wrong usage.

    \b
    Examples:
        kms-acme ca request pki/issuing -o issuing.csr
        kms-acme ca request -n pki issuing | openssl req -noout -text
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    _run(_request(_key(values), values))


@ca.command(name="install")
@_naming
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Only check the certificate and show what would change.")
def install_command(**values: Any) -> None:
    """Install the certificate that a CA of yours has issued for the request.

    FILEs contain the certificate and those above it up to the root, in any order, as PEM, DER or PKCS #7. What is
    missing above a renewed certificate is taken from the present chain. The certificate is checked before anything is
    changed. It becomes spec.internal.certificate; if the manifest is in Git, put it there, too.

    The kubeconfig's user needs the permission to patch the CertificateAuthority. Exit codes: 0 if the CA signs with the
    certificate; 1 if it could not be installed, the operator did not answer, or you declined; 2 for wrong usage; 3 if
    the certificate cannot be used.

    \b
    Examples:
        kms-acme ca install pki/issuing issuing.crt corporate-root.crt
        kms-acme ca install -n pki issuing renewed.p7b --yes
    """  # noqa: D301 - as above
    _run(_install(_key(values), _certificates(values["files"]), values))


def _key(values: Any) -> tuple[str, str]:
    name, namespace = values["name"], values["namespace"]
    if "/" not in name:
        if namespace is None:
            raise click.UsageError(f"Write NAMESPACE/{name}, or set --namespace.")
        name = f"{namespace}/{name}"
    elif namespace is not None:
        raise click.UsageError("Write the namespace once: before the name, or as --namespace.")
    return ObjectName().convert(name, None, None)


def _run(command: Any) -> None:
    try:
        raise SystemExit(asyncio.run(command))
    except (ClusterError, NotChanged) as error:
        raise click.ClickException(str(error)) from error


def _certificates(files: tuple[Path, ...]) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for file in files:
        try:
            with file.open("rb") as opened:
                found += read_certificates(opened.read(MAXIMUM_FILE + 1))
        except OSError as error:
            raise click.UsageError(f"{file} cannot be read: {error.strerror}.") from None
        except ValueError as error:
            raise click.UsageError(f"{file} {error}.") from None
    if len(found) > MAXIMUM_CERTIFICATES:
        raise click.UsageError(f"The files have {len(found)} certificates; {MAXIMUM_CERTIFICATES} are accepted.")
    return found


async def _request(key: tuple[str, str], values: Any) -> int:
    cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
    try:
        requested = await find_requested(cluster, key, wait=values["timeout"])
    finally:
        await cluster.close()
    for line in _describe_request(requested):
        click.echo(line, err=True)
    _write(requested.request, values["output"])
    if values["output"] is not None:
        click.echo(
            f"Written to {values['output']}. Install the certificate with: kms-acme ca install {'/'.join(key)} FILE",
            err=True,
        )
    return 0


def _write(request: str, output: Path | None) -> None:
    if output is None:
        click.echo(request, nl=False)
        return
    try:
        output.write_text(request, encoding="ascii")
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error


def _describe_request(requested: Requested) -> Iterator[str]:
    parsed = x509.load_pem_x509_csr(requested.request.encode())
    identifier = x509.SubjectKeyIdentifier.from_public_key(requested.public_key).digest.hex()
    yield f"Subject:         {quoted(parsed.subject.rfc4514_string())}"
    yield f"Key:             {key_algorithm(requested.public_key)}, SHA-256 {fingerprint(requested.public_key)}"
    yield f"Key identifier:  {identifier}"
    yield f"Request:         SHA-256 {hashlib.sha256(parsed.public_bytes(Encoding.DER)).hexdigest()}"


async def _install(key: tuple[str, str], certificates: list[x509.Certificate], values: Any) -> int:
    cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
    try:
        requested = await find_requested(cluster, key, wait=values["timeout"])
        try:
            chain = arrange(certificates, requested.public_key, known=requested.chain)
            check(requested, chain, clock=system_clock)
        except (InvalidAuthority, InvalidRules) as error:
            reason = error.reason if isinstance(error, InvalidAuthority) else "InvalidNameConstraints"
            click.echo(f"The certificate cannot be used: {reason}: {error}.", err=True)
            return REFUSED
        for line in _describe_change(requested, chain):
            click.echo(line)
        if values["dry_run"]:
            return 0
        if not values["yes"] and not click.confirm(f"Install it for CertificateAuthority {'/'.join(key)}?"):
            click.echo("Nothing was changed.")
            return 1
        written = await install(cluster, requested, chain)
        refused = await wait_until_used(cluster, written, chain, wait=values["timeout"], on_progress=click.echo)
    finally:
        await cluster.close()
    if refused is not None:
        click.echo(f"The operator refuses the certificate: {refused.reason}: {refused.message}", err=True)
        return REFUSED
    click.echo(f"CertificateAuthority {'/'.join(key)} signs with the certificate.")
    return 0


def _describe_change(requested: Requested, chain: Chain) -> Iterator[str]:
    own, top, before = chain[0], chain[-1], requested.chain
    yield f"Subject:         {quoted(own.subject.rfc4514_string())}"
    yield f"Key identifier:  {subject_key_id(own)}"
    yield f"Issuer:          {quoted(own.issuer.rfc4514_string())}"
    yield f"Serial number:   {own.serial_number:x}"
    yield f"Valid:           {own.not_valid_before_utc:{_TIME}} to {own.not_valid_after_utc:{_TIME}}"
    yield f"Fingerprint:     SHA-256 {own.fingerprint(hashes.SHA256()).hex()}"
    yield f"Clients trust:   {quoted(top.subject.rfc4514_string())}, SHA-256 {top.fingerprint(hashes.SHA256()).hex()}"
    if not is_root(top):
        yield "Note: the root is missing, so the topmost certificate is published as what to trust. Add its file."
    if not before:
        yield "This is the first certificate of the CA."
    elif before[0] == own:
        yield "The CA signs with this certificate already."
    else:
        yield f"It replaces the certificate that is valid until {before[0].not_valid_after_utc:{_TIME}}."
    if before and before[-1] != top:
        yield (
            f"Note: clients are told to trust another certificate than {quoted(before[-1].subject.rfc4514_string())},"
            " which stays published beside it for a time."
        )
