"""The commands `kms-acme ca backup` and `ca restore`: options, passphrases, confirmation and output."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import click

from kms.clock import system_clock, system_entropy
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.resources.meta import Unreadable
from kms.resources.secret_names import SERVICE_NAME
from kms_acme.backup.chains import ChainCheck, ChainFault
from kms_acme.backup.collect import collect, private_file
from kms_acme.backup.contents import (
    AUTHORITY,
    CHAIN,
    INVENTORY,
    RECORD,
    VERSION,
    Entry,
    Header,
    decode_contents,
    encode_entry,
    encode_header,
)
from kms_acme.backup.encryption import COST, HIGHEST_COST, BackupUnreadable, Encryptor, decrypt
from kms_acme.backup.plan import Step, Target, authorities_in_key_stores, lacks_key, plan_restore, was_ready
from kms_acme.backup.restore import (
    NotRestored,
    is_running,
    lacking_chains,
    missing_namespaces,
    read_present,
    wait_until_ready,
    write_inventory,
    write_steps,
)
from kms_acme.cli import options
from kms_acme.cli.parameters import NamespaceName

REFUSED: Final = 3
"""Exit code for a restore that would replace another key."""
MINIMUM_PASSPHRASE, MAXIMUM_PASSPHRASE = 12, 1024
"""Characters of a new passphrase, and octets of any."""


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options that both commands have."""
    return options.apply_options(
        command,
        (
            options.cluster_options,
            click.option(
                "-n",
                "--namespace",
                type=NamespaceName(),
                default=options.release_namespace,
                help=f"Release namespace. Default: {options.DEFAULT_NAMESPACE}.",
            ),
            click.option(
                "--service-name",
                default=SERVICE_NAME,
                show_default=True,
                help="Service in front of the server, after which the Secret of its CA is named.",
            ),
            click.option(
                "--passphrase-file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="File whose first line is the passphrase. Default: the variable KMS_ACME_PASSPHRASE, or a prompt.",
            ),
        ),
    )


@click.command()
@_common
@click.option("--include-orders", is_flag=True, help="Also back up accounts and orders, with certificates.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--scrypt-cost",
    type=click.IntRange(14, HIGHEST_COST),
    default=COST,
    show_default=True,
    help="Binary logarithm of scrypt's N. Each step doubles memory (17: 128 MiB) and time for each passphrase tried.",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(**values: Any) -> None:
    """Write keys and configuration into one encrypted FILE.

    It has the signing keys of CAs, the keys of EABCredentials, the CA of the server's own certificate, all CAs,
    policies, profiles and EABCredentials, and all revocations. It has no accounts and orders without --include-orders,
    no key in a key store, no Secret of yours (imported CAs, credentials of external CAs and key stores), and no labels
    of namespaces.

    The kubeconfig's user needs to list Secrets and RevocationRecords of the release namespace, and the other kinds in
    all namespaces. Exit codes: 0 if all is in the file; 1 if it could not be written or is incomplete, since the key of
    a CA or a chain of certificates is missing, or something cannot be read; 2 for wrong usage.

    \b
    Examples:
        kms-acme ca backup kms-acme.backup
        kms-acme ca backup kms-acme.backup --force --passphrase-file /run/secrets/passphrase --include-orders
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    if values["file"].exists() and not values["force"]:
        raise click.UsageError(f"{values['file']} exists; --force replaces it.")
    _run(_backup(_passphrase(values["passphrase_file"], new=True), values))


@click.command()
@_common
@click.option("--include-orders", is_flag=True, help="Also restore accounts and orders; no server may run.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="Seconds to wait until the CAs are Ready.",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(**values: Any) -> None:
    """Restore keys and configuration from a FILE of `ca backup`, into any cluster and release namespace.

    It shows what it will create, replace or leave, and asks. A CA or EABCredential that has another key is never
    replaced: then nothing is restored. The command can be repeated. With an operator, it waits until the CAs are Ready.

    The kubeconfig's user needs to read and write all kinds of the backup. Exit codes: 0 if all is restored; 1 if the
    file or the passphrase is wrong, something could not be restored, or you declined; 2 for wrong usage; 3 if there is
    another key.

    \b
    Examples:
        kms-acme ca restore kms-acme.backup --dry-run
        kms-acme ca restore kms-acme.backup -n pki-system --include-orders
    """  # noqa: D301 - as above
    _run(_restore(_passphrase(values["passphrase_file"], new=False), values))


def _passphrase(file: Path | None, *, new: bool) -> str:
    variable = options.passphrase()
    if file is not None:
        try:
            with file.open("rb") as opened:
                found = opened.read(MAXIMUM_PASSPHRASE + 2).decode().split("\n", 1)[0].removesuffix("\r")
        except (OSError, UnicodeDecodeError):
            raise click.UsageError(f"{file} cannot be read as text.") from None
    elif variable is not None:
        found = variable
    else:
        found = click.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
    if not found or len(found.encode()) > MAXIMUM_PASSPHRASE:
        raise click.UsageError(f"The passphrase must have 1 to {MAXIMUM_PASSPHRASE} octets.")
    if new and len(found) < MINIMUM_PASSPHRASE:
        raise click.UsageError(f"The passphrase must have at least {MINIMUM_PASSPHRASE} characters.")
    return found


def _run(command: Coroutine[Any, Any, int]) -> None:
    try:
        raise SystemExit(asyncio.run(command))
    except (ClusterError, NotRestored) as error:
        raise click.ClickException(str(error)) from error


async def _connect(values: Any) -> Cluster:
    return await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])


async def _backup(passphrase: str, values: Any) -> int:
    path = values["file"]
    unreadable: list[Unreadable] = []
    chains = ChainCheck()
    cluster = await _connect(values)
    try:
        with private_file(path, replace=values["force"]) as file:
            kept = await _write(cluster, file, passphrase, values, unreadable=unreadable, chains=chains)
    except FileExistsError:
        raise click.ClickException(f"{path} was created meanwhile; --force replaces it") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    finally:
        await cluster.close()
    small, counts = kept
    click.echo(f"Written to {path}: {_count(counts)}.")
    if not values["include_orders"]:
        click.echo("Accounts and orders are not in it: --include-orders.")
    for each in authorities_in_key_stores(small):
        click.echo(f"Note: the key of {each} is in its key store, not in the backup.")
    for one in unreadable:
        click.echo(f"{one.metadata.namespace}/{one.metadata.name} cannot be read and is missing: {one}", err=True)
    keyless = [each for each in small if each.kind is AUTHORITY and lacks_key(each, small)]
    for each in keyless:
        click.echo(
            f"{each} has no key in the release namespace {values['namespace']}, so the backup has none.", err=True
        )
    faults = list(chains.faults())
    _warn_of(faults)
    return 1 if unreadable or keyless or faults else 0


def _warn_of(faults: Iterable[ChainFault]) -> None:
    """Tell which chains are missing or were changed: nobody else says so before a client asks for its certificate."""
    for each in faults:
        click.echo(f"{each}. Their certificates are not served unless a CertificateAuthority has that chain.", err=True)


async def _write(
    cluster: Cluster,
    file: IO[bytes],
    passphrase: str,
    values: Any,
    *,
    unreadable: list[Unreadable],
    chains: ChainCheck,
) -> tuple[list[Entry], Counter[str]]:
    """Write all objects. Returns keys and configuration, which are few, and the number of objects of each kind."""
    target = Target(values["namespace"], values["service_name"])
    header = Header(
        version=VERSION,
        created_at=system_clock(),
        namespace=target.namespace,
        service_name=target.service_name,
        has_orders=values["include_orders"],
    )
    encryptor = await asyncio.to_thread(
        Encryptor, passphrase, file.write, entropy=system_entropy, cost=values["scrypt_cost"]
    )
    encryptor.add(encode_header(header))
    small: list[Entry] = []
    counts: Counter[str] = Counter()
    async for entry in collect(cluster, target, orders=values["include_orders"], on_unreadable=unreadable.append):
        encryptor.add(encode_entry(entry))
        chains.add(entry)
        counts[entry.kind.kind] += 1
        if entry.kind is not RECORD and entry.kind not in INVENTORY:
            small.append(entry)
    encryptor.finish()
    return small, counts


def _count(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {_plural(kind, number)}" for kind, number in counts.items()) or "nothing"


def _plural(kind: str, number: int) -> str:
    return kind if number == 1 else re.sub("y$", "ie", kind) + "s"


def _read(path: Path, passphrase: str) -> Iterator[Header | Entry]:
    try:
        with path.open("rb") as file:
            yield from decode_contents(decrypt(file, passphrase))
    except BackupUnreadable as error:
        raise NotRestored(f"{path} {error}") from None
    except OSError as error:
        raise NotRestored(f"{path} cannot be read: {error.strerror}") from error


def _inventory(path: Path, passphrase: str) -> Iterator[Entry]:
    """Chains, accounts and orders: what orders refer to comes before them. It reads the file twice."""
    for kinds in ((CHAIN,), tuple(each for each in INVENTORY if each is not CHAIN)):
        yield from (each for each in _read(path, passphrase) if isinstance(each, Entry) and each.kind in kinds)


def _load(path: Path, passphrase: str) -> tuple[Header, list[Entry], Counter[str], set[str], list[ChainFault]]:
    """The header, all but accounts, orders and chains, the number of those, the namespaces of all, and flawed chains.

    It reads the whole file: nothing is written before it is known to be whole. Raises NotRestored.
    """
    header: Header | None = None
    entries: list[Entry] = []
    counts: Counter[str] = Counter()
    namespaces: set[str] = set()
    chains = ChainCheck()
    for each in _read(path, passphrase):
        if isinstance(each, Header):
            header = each
        elif each.kind in INVENTORY:
            counts[each.kind.kind] += 1
            namespaces.add(each.key[0])
            chains.add(each)
        else:
            entries.append(each)
    if header is None:
        raise NotRestored(f"{path} is empty")
    return header, entries, counts, namespaces, list(chains.faults())


async def _restore(passphrase: str, values: Any) -> int:
    target = Target(values["namespace"], values["service_name"])
    header, entries, counts, namespaces, faults = await asyncio.to_thread(_load, values["file"], passphrase)
    with_orders = values["include_orders"]
    if with_orders and not header.has_orders:
        raise click.UsageError("The backup has no accounts and orders.")
    click.echo(f"Backup of {header.namespace}, {header.created_at:%Y-%m-%d %H:%M:%SZ}.")
    cluster = await _connect(values)
    try:
        if with_orders and await is_running(cluster, target, "server", clock=system_clock):
            raise NotRestored(
                "a server runs, which would delete accounts and orders before they have their status; stop it:"
                f" kubectl -n {target.namespace} scale deployment kms-acme --replicas=0"
            )
        steps = await _decide(cluster, entries, target, namespaces if with_orders else set())
        for line in _describe(steps, counts, with_orders=with_orders):
            click.echo(line)
        lacking = await lacking_chains(cluster, faults) if with_orders else []
        _warn_of(lacking)
        if any(each.verb == "refuse" for each in steps):
            click.echo("Nothing was restored.", err=True)
            return REFUSED
        if values["dry_run"]:
            return 0
        if not values["yes"] and not click.confirm("Restore?"):
            click.echo("Nothing was changed.")
            return 1
        operated = await is_running(cluster, target, "operator", clock=system_clock)
        await write_steps(cluster, steps, pause=_PAUSE if operated else 0, on_progress=click.echo)
        failed = await _write_inventory(cluster, values["file"], passphrase) if with_orders else 0
        await _wait(cluster, steps, operated=operated, wait=values["timeout"])
    finally:
        await cluster.close()
    return 1 if failed or lacking else 0


_PAUSE: Final = 3.0
"""Seconds that the operator has to see keys; its watch tells it within milliseconds."""


async def _decide(cluster: Cluster, entries: list[Entry], target: Target, more: set[str]) -> tuple[Step, ...]:
    places = {each.key[0] for each in entries if not each.is_internal}
    if missing := await missing_namespaces(cluster, {*places, *more, target.namespace}):
        raise NotRestored(
            f"namespaces are missing: {', '.join(missing)}; create them with their labels, which decide what their"
            " credentials may do: kubectl create namespace NAME"
        )
    return plan_restore(entries, await read_present(cluster, places, target), target=target)


def _describe(steps: tuple[Step, ...], counts: Counter[str], *, with_orders: bool) -> Iterator[str]:
    records = Counter(each.verb for each in steps if each.entry.kind is RECORD)
    for step in steps:
        if step.entry.kind is not RECORD:
            yield f"{step.verb:8} {step.entry}" + (f" ({step.detail})" if step.detail else "")
    for verb, number in records.items():
        yield f"{verb:8} {number} {_plural(RECORD.kind, number)}"
    for kind, number in counts.items():
        verb, why = ("create", " that do not exist") if with_orders else ("leave", " (--include-orders restores them)")
        yield f"{verb:8} {number} {_plural(kind, number)}{why}"


async def _write_inventory(cluster: Cluster, path: Path, passphrase: str) -> int:
    written = await write_inventory(
        cluster, _inventory(path, passphrase), on_failure=lambda line: click.echo(line, err=True)
    )
    click.echo(
        f"Accounts, orders and chains: {written.created} created, {written.present} existed, {written.failed} failed."
    )
    return written.failed


async def _wait(cluster: Cluster, steps: tuple[Step, ...], *, operated: bool, wait: float) -> None:
    backup = [each.entry for each in steps]
    kept_away = {id(each.entry) for each in steps if each.verb == "leave" and each.existing is None}
    authorities = [each for each in backup if each.kind is AUTHORITY and was_ready(each) and id(each) not in kept_away]
    if not operated:
        click.echo("Restored. No operator runs: start it, and see that the CAs are Ready: kubectl get kca -A")
        return
    left = {str(each.entry) for each in steps if each.verb == "leave"}
    await wait_until_ready(cluster, authorities, backup, wait=wait, on_progress=click.echo, left=left)
    click.echo("Restored.")
