"""Direct writes of a custom resource: the writes of the floor."""

from __future__ import annotations

import base64
import itertools
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import yaml

NAMESPACE = "load"
GROUP = "load.kms-acme.invalid"
KIND, PLURAL = "Floor", "floors"
SIZE = 3000
"""Size of an object in bytes: that of an order with its certificate."""


class Metadata(msgspec.Struct):
    """The part of an answer that the next write needs."""

    resourceVersion: str  # noqa: N815 - as Kubernetes spells it


class Written(msgspec.Struct):
    """The answer to a write."""

    metadata: Metadata


DECODER = msgspec.json.Decoder(Written)


class RawWrites:
    """Writes objects of the kind Floor, about SIZE bytes each."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, run: str) -> None:
        self._session = session
        self._url = url
        self._names = (f"{run}-{number}" for number in itertools.count())

    async def create(self) -> tuple[str, str]:
        """Create an object; returns its name and version.

        Raises:
            aiohttp.ClientResponseError: if the API server refuses.
        """
        name = next(self._names)
        return name, await self._write("POST", self._url, {"name": name}, "spec")

    async def put_status(self, name: str, version: str) -> str:
        """Replace the status of the object at this version; returns the new version. Raises the errors of `create`."""
        metadata = {"name": name, "resourceVersion": version}
        return await self._write("PUT", f"{self._url}/{name}/status", metadata, "status")

    async def three(self) -> None:
        """Write as for an order: create an object and replace its status twice. Raises the errors of `create`."""
        name, version = await self.create()
        for _ in range(2):
            version = await self.put_status(name, version)

    async def _write(self, method: str, url: str, metadata: dict[str, str], part: str) -> str:
        # The content changes with the version; otherwise, the API server would skip the write.
        content = {"filler": metadata.get("resourceVersion", "").ljust(SIZE - 200, "x")}
        body = {
            "apiVersion": f"{GROUP}/v1",
            "kind": KIND,
            "metadata": {**metadata, "namespace": NAMESPACE},
            part: content,
        }
        async with self._session.request(method, url, data=msgspec.json.encode(body)) as answer:
            text = await answer.read()
            answer.raise_for_status()
        return DECODER.decode(text).metadata.resourceVersion


class Endpoint(msgspec.Struct, frozen=True):
    """An API server with a token to write; `authority` is its CA certificate in PEM."""

    server: str
    token: str
    authority: str

    @classmethod
    def read(cls, kubeconfig: Path) -> Endpoint:
        """Read a kubeconfig with one cluster and one user with a token."""
        config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, token = config["clusters"][0]["cluster"], config["users"][0]["user"]["token"]
        return cls(cluster["server"], token, base64.b64decode(cluster["certificate-authority-data"]).decode())


@asynccontextmanager
async def writing(endpoint: Endpoint) -> AsyncIterator[RawWrites]:
    """Open a session for writes to this API server."""
    agent = {"Content-Type": "application/json", "User-Agent": "kms-acme-load"}
    headers = {"Authorization": f"Bearer {endpoint.token}", **agent}
    tls = ssl.create_default_context(cadata=endpoint.authority)
    url = f"{endpoint.server}/apis/{GROUP}/v1/namespaces/{NAMESPACE}/{PLURAL}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), headers=headers) as session:
        yield RawWrites(session, url, run=secrets.token_hex(5))
