"""Repeats the recorded writes of an order with one schema or another, on one API server."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import count
from typing import Any

import aiohttp
import click
import msgspec

from e2e.cluster import Cluster
from e2e.load.goruntime import GoRuntime
from e2e.load.schemas import PLURAL, Schema
from e2e.load.writes import Endpoint

NAMESPACE, WRITER = "schema", "writer"
AT_ONCE = 8


class Replay:
    """Repeats the writes of an order with one schema."""

    def __init__(self, session: aiohttp.ClientSession, server: str, schema: Schema) -> None:
        self._session = session
        self._schema = schema
        self._server = server
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

    async def runtime(self) -> GoRuntime:
        """What the API server has allocated and collected so far.

        Raises:
            click.ClickException: if it does not say so.
        """
        async with self._session.get(f"{self._server}/metrics") as answer:
            text = await answer.text()
        try:
            return GoRuntime.parse(text)
        except ValueError as error:
            raise click.ClickException(f"the metrics of the API server: {error}") from error

    async def watch(self) -> None:
        """Read all events, like a server, until cancelled."""
        async with self._session.get(self._url, params={"watch": "true"}) as answer:
            async for _ in answer.content.iter_any():
                pass


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
    rules = [
        {"apiGroups": [each.group for each in schemas], "resources": [PLURAL, f"{PLURAL}/status"], "verbs": ["*"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ]
    account = {"kind": "ServiceAccount", "name": WRITER, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": WRITER}
    api, named = "rbac.authorization.k8s.io/v1", {"name": WRITER}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": WRITER, "namespace": NAMESPACE}},
        {"apiVersion": api, "kind": "ClusterRole", "metadata": named, "rules": rules},
        {"apiVersion": api, "kind": "ClusterRoleBinding", "metadata": named, "roleRef": role, "subjects": [account]},
        *(each.crd for each in schemas),
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=listed)
    names = (f"crd/{each.crd['metadata']['name']}" for each in schemas)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    cluster.learn_new_kinds()
    return Endpoint.read(cluster.kubeconfig_for(WRITER, NAMESPACE))
