from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from e2e.load.writes import SIZE, Endpoint, RawWrites


class Api:
    """Takes writes as the API server does: each one makes a new version, and only the newest may be written."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, Any], int]] = []
        self.version = 0

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.read()
        body = json.loads(text)
        if body["metadata"].get("resourceVersion", "0") != str(self.version):
            return web.Response(status=409)
        self.version += 1
        self.seen.append((request.method, request.path, body, len(text)))
        body["metadata"]["resourceVersion"] = str(self.version)
        return web.json_response(body, status=201 if request.method == "POST" else 200)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def writes(api: Api) -> AsyncIterator[RawWrites]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        yield RawWrites(session, str(server.make_url("/floors")), run="r")


async def test_an_object_is_created_and_its_status_put_twice(api: Api, writes: RawWrites) -> None:
    await writes.three_writes()
    assert [(method, path) for method, path, _, _ in api.seen] == [
        ("POST", "/floors"), ("PUT", "/floors/r-0/status"), ("PUT", "/floors/r-0/status"),
    ]  # fmt: skip
    assert all(SIZE * 0.9 < size < SIZE * 1.1 for _, _, _, size in api.seen)
    assert len({body["status"]["filler"] for _, _, body, _ in api.seen[1:]}) == 2


async def test_a_write_that_is_refused_is_an_error(api: Api, writes: RawWrites) -> None:
    api.version = 7
    with pytest.raises(aiohttp.ClientResponseError, match="409"):
        await writes.three_writes()


def test_a_kubeconfig_tells_where_to_write_and_as_whom(tmp_path: Path) -> None:
    authority = trustme.CA().cert_pem.bytes()
    config = {
        "clusters": [
            {"cluster": {"server": "https://a:1", "certificate-authority-data": base64.b64encode(authority).decode()}}
        ],
        "users": [{"user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    endpoint = Endpoint.read(path)
    assert (endpoint.server, endpoint.token) == ("https://a:1", "t")
    assert len(endpoint.tls.get_ca_certs()) == 1
