"""Writes of a custom resource with nothing between them and the wire: what `floor` calls a write."""

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
"""Octets of an object: what an order with its certificate takes."""


class Metadata(msgspec.Struct):
    """What has to be read of an answer to write again."""

    resourceVersion: str  # noqa: N815 - as Kubernetes spells it


class Written(msgspec.Struct):
    """An answer to a write."""

    metadata: Metadata


DECODER = msgspec.json.Decoder(Written)


class RawWrites:
    """Writes objects of a kind of our own, about SIZE octets each time."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, run: str) -> None:
        self._session = session
        self._url = url
        self._names = (f"{run}-{number}" for number in itertools.count())

    async def create(self) -> tuple[str, str]:
        """Create an object; its name and version.

        Raises:
            aiohttp.ClientResponseError: if the API server refuses.
        """
        name = next(self._names)
        return name, await self._write("POST", self._url, {"name": name}, "spec")

    async def put_status(self, name: str, version: str) -> str:
        """Write the status of the object that is at that version; its new version. Raises as `create` does."""
        metadata = {"name": name, "resourceVersion": version}
        return await self._write("PUT", f"{self._url}/{name}/status", metadata, "status")

    async def three(self) -> None:
        """What an order is written: an object is created and its status put twice. Raises as `create` does."""
        name, version = await self.create()
        for _ in range(2):
            version = await self.put_status(name, version)

    async def _write(self, method: str, url: str, metadata: dict[str, str], part: str) -> str:
        # With the version the content changes, or the API server would see that there is nothing to write.
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
async def writing(endpoint: Endpoint) -> AsyncIterator[RawWrites]:
    """Writes to this API server."""
    agent = {"Content-Type": "application/json", "User-Agent": "kms-acme-load"}
    headers = {"Authorization": f"Bearer {endpoint.token}", **agent}
    tls = ssl.create_default_context(cadata=endpoint.authority)
    url = f"{endpoint.server}/apis/{GROUP}/v1/namespaces/{NAMESPACE}/{PLURAL}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), headers=headers) as session:
        yield RawWrites(session, url, run=secrets.token_hex(5))
