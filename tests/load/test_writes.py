from __future__ import annotations

import base64
from pathlib import Path

import aiohttp
import pytest
import trustme
import yaml

from e2e.load.writes import SIZE, Endpoint, writing
from tests.support.recorded_writes import recorded_writes


async def test_an_object_is_created_and_its_status_put_twice() -> None:
    async with recorded_writes() as (api, written), writing(api) as writes:
        await writes.three()
        await writes.three()
    assert [(each.method, each.status) for each in written] == [("POST", 201), ("PUT", 200), ("PUT", 200)] * 2
    collection, objects = written[0].path, {each.path for each in written if each.method == "PUT"}
    assert len(objects) == 2
    assert all(path.startswith(f"{collection}/") and path.endswith("/status") for path in objects)
    assert all(SIZE * 0.9 < each.size < SIZE * 1.1 for each in written)
    assert len({each.body["status"]["filler"] for each in written[1:3]}) == 2


async def test_a_write_that_is_refused_is_an_error() -> None:
    async with recorded_writes(refuse="PUT") as (api, _), writing(api) as writes:
        with pytest.raises(aiohttp.ClientResponseError, match="409"):
            await writes.three()


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
    assert endpoint.authority == authority.decode()
