from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from cryptography import x509

from e2e.load.keys import certificate_id
from tests.support.acme import EXTERNAL_URL
from tests.support.server import Server, running_server

pytestmark = pytest.mark.requirement("ARI-M2")
INFO = "/acme/pki/web/renewal-info"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        await running.register()
        running.world.services.state.order_index.mark_complete()
        yield running


@pytest.fixture
async def issued(server: Server) -> x509.Certificate:
    return await server.certificate(await server.finalize(await server.ready()))


@pytest.mark.requirement("ARI-M3", "ARI-M4")
async def test_anybody_is_told_the_window_and_when_to_ask_again(server: Server, issued: x509.Certificate) -> None:
    answer = await server.get(f"{INFO}/{certificate_id(issued)}")
    assert answer.status == 200
    window = answer.json["suggestedWindow"]
    assert answer.json.keys() == {"suggestedWindow"}
    assert f"{issued.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}" < window["start"] < window["end"]
    assert window["end"] < f"{issued.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert answer.headers["Retry-After"] == "21600"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert "Replay-Nonce" not in answer.headers


@pytest.mark.requirement("ARI-M13")
async def test_head_is_answered_as_get(server: Server, issued: x509.Certificate) -> None:
    answer = await server.get(f"{INFO}/{certificate_id(issued)}", "HEAD")
    assert (answer.status, answer.headers["Retry-After"]) == (200, "21600")


@pytest.mark.requirement("ARI-M5")
async def test_a_certificate_that_is_not_ours_is_not_found(server: Server, issued: x509.Certificate) -> None:
    id_ = certificate_id(issued)
    assert (await server.get(f"{INFO}/{id_.partition('.')[0]}.AQ")).problem["status"] == 404
    assert (await server.get(f"/acme/pki/none/renewal-info/{id_}")).status == 404


async def test_it_is_not_read_by_post(server: Server) -> None:
    assert (await server.post(f"{INFO}/a.AQ")).status == 405


@pytest.mark.requirement("ARI-M1", "C13")
async def test_the_directory_tells_where_it_is(server: Server) -> None:
    assert (await server.get("/acme/pki/web/directory")).json["renewalInfo"] == f"{EXTERNAL_URL}{INFO}"
