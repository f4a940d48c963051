"""`python -m e2e.load.schema`: what an order costs the API server, with this schema and with another one."""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
import uvloop

from e2e.cluster import Cluster, ClusterError, Progress, running
from e2e.cluster.install import CRDS, install
from e2e.load.copies import Etcd
from e2e.load.processes import usages
from e2e.load.recording import Write, record, save
from e2e.load.report import columns, verdicts
from e2e.load.scenario import SetUpFailed, component_pid
from e2e.load.schemas import CRD, PLURAL, TRIALS, WRITES, Schema, base_writes, schema
from e2e.load.writes import Endpoint
from e2e.support.programs import ProgramFailed

HELP = """Measure what an order costs the API server: CPU time, and bytes in etcd.

It starts a Kubernetes control plane, the operator and the server, and orders a certificate. Then it repeats the three
writes of that order (create, results of the challenges, certificate) with each schema in turn. Each has an API group of
its own, so one API server serves them all, and a watch, as a server has. CPU time is that of kube-apiserver and etcd
from /proc, so other programs on the machine disturb little.

\b
Rows:
  base     the CRD and the writes of --base, by default those before the schema
           was made cheaper (e2e/load/shipped)
  today    crds/acmeorders.yaml and the writes of the server of today
  others   --trial: the base with a part of its schema changed

\b
Columns: API server CPU (median of the rounds, and their quartiles) and etcd CPU, relative to the base; bytes of an
order in etcd: its last version, and all three; bytes of its requests and answers.

\b
Examples:
  python -m e2e.load.schema                               about three minutes
  python -m e2e.load.schema --trial no-rules --trial no-schema
  python -m e2e.load.schema --save /tmp/today             keep CRD and writes of today as a base
  git archive v0.2.0 crds | tar -x -C /tmp && python -m e2e.load.schema --base /tmp/crds
                                                          another CRD as base; its writes are those of today, since
                                                          the folder has none

Exit codes: 0 for success; 1 if the measurement failed or, with --check, if a goal was missed; 2 for wrong usage."""

SHIPPED = Path(__file__).with_name("shipped")
NAMESPACE, WRITER = "schema", "writer"
BASE, TODAY = "base", "today"
APISERVER, ETCD = "kube-apiserver", "etcd"
AT_ONCE = 8
CPU_GOAL, BYTES_GOAL = 0.7, 0.8
"""Goals: CPU time of the API server and bytes in etcd of an order, relative to the base."""


@dataclass(slots=True)
class Row:
    """The figures of a schema: CPU seconds an order of each round, and bytes an order in etcd.

    `stored` are the bytes of the last version in etcd, `written` those of all three, `sent` those of requests and
    answers.
    """

    apiserver: list[float] = field(default_factory=list)
    etcd: list[float] = field(default_factory=list)
    stored: int = 0
    written: int = 0
    sent: int = 0


class Replay:
    """Repeats the writes of an order with one schema."""

    def __init__(self, session: aiohttp.ClientSession, server: str, schema: Schema) -> None:
        self._session = session
        self._schema = schema
        self._url = f"{server}/apis/{schema.group}/{schema.version}/namespaces/{NAMESPACE}/{PLURAL}"
        self._numbers = count()
        self.octets = 0

    async def orders(self, number: int) -> int:
        """Write this many orders, AT_ONCE concurrently; the number of those that a busy API server did not abort.

        Raises:
            click.ClickException: if the API server refuses a write.
        """
        turns = iter(range(number))

        async def worker() -> int:
            return [await self.order() for _ in turns].count(None)

        return number - sum(await asyncio.gather(*(worker() for _ in range(AT_ONCE))))

    async def order(self, versions: int = 3) -> str | None:
        """Write the first versions of a new order; its name, or None if the API server is too busy.

        Raises:
            click.ClickException: if the API server refuses a write.
        """
        metadata: dict[str, Any] = {"name": f"order-{next(self._numbers):026}", "namespace": NAMESPACE}
        for write, body in self._schema.writes[:versions]:
            own = {key: metadata[key] for key in body["metadata"] if key in metadata}
            document = msgspec.json.encode({**body, "metadata": {**body["metadata"], **own}})
            url = self._url if write.method == "POST" else f"{self._url}/{metadata['name']}{write.subresource}"
            headers = {"Accept": write.accept}
            async with self._session.request(write.method, url, data=document, headers=headers) as answer:
                text = await answer.read()
                self.octets += len(document) + len(text)
                if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    return None
                if not answer.ok:
                    raise click.ClickException(f"{self._schema.name}: {text.decode()}")
            metadata = msgspec.json.decode(text)["metadata"]
        return str(metadata["name"])

    async def watch(self) -> None:
        """Read all events, like a server, until cancelled."""
        async with self._session.get(self._url, params={"watch": "true"}) as answer:
            async for _ in answer.content.iter_any():
                pass


class Measuring:
    """Runs the rounds."""

    def __init__(self, etcd: Etcd, pids: dict[str, int], replays: dict[str, Replay]) -> None:
        self._etcd = etcd
        self._pids = pids
        self._replays = replays
        self.rows = {name: Row() for name in replays}

    async def sizes(self, schemas: Sequence[Schema]) -> None:
        """Measure the bytes of each version in etcd."""
        for each in schemas:
            row, replay = self.rows[each.name], self._replays[each.name]
            for versions in (1, 2, 3):
                before = replay.octets
                name = await replay.order(versions)
                if name is None:
                    raise click.ClickException("the API server is too busy; try again when the machine is not")
                row.sent = replay.octets - before
                row.stored = await self._etcd.size(f"{each.prefix}{NAMESPACE}/{name}")
                row.written += row.stored

    async def rounds(self, rounds: int, orders: int) -> None:
        """Write `orders` orders with each schema in each round, after a round that does not count."""
        names = list(self._replays)
        for number in range(rounds + 1):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                before = usages(self._pids)
                written = await self._replays[name].orders(orders)
                after = usages(self._pids)
                if number:
                    row = self.rows[name]
                    row.apiserver.append((after[APISERVER].cpu - before[APISERVER].cpu) / max(written, 1))
                    row.etcd.append((after[ETCD].cpu - before[ETCD].cpu) / max(written, 1))


@asynccontextmanager
async def replaying(endpoint: Endpoint, schemas: Sequence[Schema]) -> AsyncIterator[dict[str, Replay]]:
    """Open connections and a watch for each schema."""
    headers = {
        "Authorization": f"Bearer {endpoint.token}",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "kms-acme",
    }
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=endpoint.authority), limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        replays = {each.name: Replay(session, endpoint.server, each) for each in schemas}
        watches = [asyncio.create_task(each.watch()) for each in replays.values()]
        try:
            yield replays
        finally:
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)


def prepare(cluster: Cluster, schemas: Sequence[Schema]) -> Endpoint:
    """Create the CRDs, and a ServiceAccount that may write their objects."""
    rule = {"apiGroups": [each.group for each in schemas], "resources": [PLURAL, f"{PLURAL}/status"], "verbs": ["*"]}
    named = {"name": WRITER, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": WRITER}
    api = "rbac.authorization.k8s.io/v1"
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {"apiVersion": api, "kind": "Role", "metadata": named, "rules": [rule]},
        {
            "apiVersion": api,
            "kind": "RoleBinding",
            "metadata": named,
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **named}],
        },
        *(each.crd for each in schemas),
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=listed)
    names = (f"crd/{each.crd['metadata']['name']}" for each in schemas)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    cluster.learn_new_kinds()
    return Endpoint.read(cluster.kubeconfig_for(WRITER, NAMESPACE))


def measure(
    folder: Path, progress: Progress, *, base: Path, trials: Sequence[str], rounds: int, orders: int, saved: Path | None
) -> dict[str, Row]:
    """Measure on a new cluster with its files in this folder; a row for each schema, the base first.

    Raises:
        SetUpFailed, ProgramFailed, ClusterError: if something does not start.
    """
    with running(folder / "cluster", progress) as cluster:
        install(cluster)
        progress.say("recording the writes of an order")
        today = record(cluster, folder)
        if saved is not None:
            keep(saved, today)
        writes = base_writes(base, today)
        schemas = [
            schema(0, BASE, base / CRD, writes),
            schema(1, TODAY, CRDS / CRD, today),
            *(schema(at, each, base / CRD, writes, TRIALS[each]) for at, each in enumerate(trials, 2)),
        ]
        endpoint = prepare(cluster, schemas)
        pids = {name: component_pid(folder / "cluster", name) for name in (APISERVER, ETCD)}
        progress.say(f"measuring {len(schemas)} schemas in {rounds} rounds")
        return uvloop.run(_measure(endpoint, cluster.etcd_url, pids, schemas, rounds=rounds, orders=orders))


async def _measure(
    endpoint: Endpoint, etcd_url: str, pids: dict[str, int], schemas: Sequence[Schema], *, rounds: int, orders: int
) -> dict[str, Row]:
    async with aiohttp.ClientSession() as session, replaying(endpoint, schemas) as replays:
        measuring = Measuring(Etcd(session, etcd_url), pids, replays)
        await measuring.sizes(schemas)
        await measuring.rounds(rounds, orders)
        return measuring.rows


def keep(folder: Path, writes: tuple[Write, ...]) -> None:
    """Save the CRD and the writes of today in a folder that --base takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CRD).write_bytes((CRDS / CRD).read_bytes())
    save(folder / WRITES, writes)


def ratios(row: Row, base: Row) -> list[float]:
    """The CPU time of the API server relative to the base, of each round, in ascending order."""
    return sorted(own / other for own, other in zip(row.apiserver, base.apiserver, strict=True))


def table(rows: dict[str, Row]) -> str:
    """A row for each schema: figures relative to the base, and bytes an order."""
    head = ("schema", "API server CPU", "quartiles", "etcd CPU", "stored", "relative", "written", "relative", "sent")
    return columns([head, *(_row(name, row, rows[BASE]) for name, row in rows.items())])


def _row(name: str, row: Row, base: Row) -> tuple[str, ...]:
    low, middle, high = statistics.quantiles(ratios(row, base), n=4)
    return (
        name,
        f"{middle:.2f}",
        f"{low:.2f} - {high:.2f}",
        f"{sum(row.etcd) / sum(base.etcd):.2f}",
        f"{row.stored}",
        f"{row.stored / base.stored:.2f}",
        f"{row.written}",
        f"{row.written / base.written:.2f}",
        f"{row.sent}",
    )


def goals(rows: dict[str, Row]) -> list[tuple[str, bool]]:
    """The goals, and whether each was met."""
    base, today = rows[BASE], rows[TODAY]
    cpu, octets = statistics.median(ratios(today, base)), today.stored / base.stored
    return [
        (f"API server CPU an order at most {CPU_GOAL:.2f} of the base: {cpu:.2f}", cpu <= CPU_GOAL),
        (f"bytes an order at most {BYTES_GOAL:.2f} of the base: {octets:.2f}", octets <= BYTES_GOAL),
    ]


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--base",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=SHIPPED,
    help=f"Folder with {CRD} to compare with, and maybe {WRITES}. Default: the one described above.",
)
@click.option("--trial", "trials", type=click.Choice(list(TRIALS)), multiple=True, help="Also measure. Repeatable.")
@click.option("--rounds", type=click.IntRange(2), default=20, show_default=True, help="Rounds that count.")
@click.option("--orders", type=click.IntRange(1), default=64, show_default=True, help="Orders of a schema in a round.")
@click.option(
    "--save", "saved", type=click.Path(file_okay=False, path_type=Path), help="Save CRD and writes of today here."
)
@click.option("--check", is_flag=True, help="Exit with 1 if a goal was missed.")
def main(base: Path, trials: tuple[str, ...], rounds: int, orders: int, saved: Path | None, *, check: bool) -> None:
    """Measure and print the table."""
    if not (base / CRD).exists():
        raise click.BadParameter(f"there is no {CRD} in {base}", param_hint="--base")
    try:
        with tempfile.TemporaryDirectory(prefix="kms-acme-schema-") as name:
            rows = measure(
                Path(name), Progress(sys.stderr), base=base, trials=trials, rounds=rounds, orders=orders, saved=saved
            )
    except (ClusterError, SetUpFailed, ProgramFailed, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(rows))
    told = goals(rows)
    click.echo(f"\n{verdicts(told)}")
    sys.exit(1 if check and not all(kept for _, kept in told) else 0)


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.schema")
