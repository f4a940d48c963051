"""Three writes of a custom resource with nothing between them and the wire: what `floor` calls a write."""

from __future__ import annotations

import base64
import itertools
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

ThreeWrites = Callable[[], Awaitable[None]]
"""Writes what an order is written: creates an object, puts its status twice."""

NAMESPACE = "load"
GROUP = "load.kms-acme.invalid"
KIND, PLURAL = "Floor", "floors"
SIZE = 3000
"""Octets of an object: what an order with its certificate takes."""


class Metadata(msgspec.Struct):
    """What has to be read of an answer to write again."""

    resourceVersion: str  # noqa: N815 - as Kubernetes spells it


class Written(msgspec.Struct):
    """An answer to a write."""

    metadata: Metadata


DECODER = msgspec.json.Decoder(Written)


class RawWrites:
    """Creates an object of our own kind and puts its status twice, each time about SIZE octets."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, run: str) -> None:
        self._session = session
        self._url = url
        self._names = (f"{run}-{number}" for number in itertools.count())

    async def three_writes(self) -> None:
        """Do them.

        Raises:
            aiohttp.ClientResponseError: if the API server refuses one.
        """
        metadata = {"name": next(self._names), "namespace": NAMESPACE}
        filler = "x" * (SIZE - 200)
        body: dict[str, Any] = {"apiVersion": f"{GROUP}/v1", "kind": KIND, "metadata": metadata}
        version = await self._write("POST", self._url, body | {"spec": {"filler": filler}})
        for number in range(2):
            metadata["resourceVersion"] = version
            status = {"filler": f"{number}{filler}"}
            version = await self._write("PUT", f"{self._url}/{metadata['name']}/status", body | {"status": status})

    async def _write(self, method: str, url: str, body: Any) -> str:
        async with self._session.request(method, url, data=msgspec.json.encode(body)) as answer:
            text = await answer.read()
            answer.raise_for_status()
        return DECODER.decode(text).metadata.resourceVersion


class Endpoint(msgspec.Struct, frozen=True):
    """An API server and what lets us write there; `authority` is its CA certificate in PEM."""

    server: str
    token: str
    authority: str

    @classmethod
    def read(cls, kubeconfig: Path) -> Endpoint:
        """From a kubeconfig with one cluster and one user, who has a token."""
        config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, token = config["clusters"][0]["cluster"], config["users"][0]["user"]["token"]
        return cls(cluster["server"], token, base64.b64decode(cluster["certificate-authority-data"]).decode())


@asynccontextmanager
async def writing(endpoint: Endpoint) -> AsyncIterator[ThreeWrites]:
    """Three writes to this API server."""
    agent = {"Content-Type": "application/json", "User-Agent": "kms-acme-load"}
    headers = {"Authorization": f"Bearer {endpoint.token}", **agent}
    tls = ssl.create_default_context(cadata=endpoint.authority)
    url = f"{endpoint.server}/apis/{GROUP}/v1/namespaces/{NAMESPACE}/{PLURAL}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), headers=headers) as session:
        yield RawWrites(session, url, run=secrets.token_hex(5)).three_writes
