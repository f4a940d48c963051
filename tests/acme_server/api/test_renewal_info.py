from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.acme import EXTERNAL_URL, Edge, problem_of, running_edge

pytestmark = pytest.mark.requirement("ARI-M2")
INFO = "/acme/pki/web/renewal-info"


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running


@pytest.mark.requirement("ARI-M3", "ARI-M4")
async def test_anybody_is_told_the_window_and_when_to_ask_again(edge: Edge) -> None:
    answer = await edge.http.get(f"{INFO}/known.certificate")
    assert answer.status == 200
    assert await answer.json() == {
        "suggestedWindow": {"start": "2026-12-13T12:00:00Z", "end": "2026-12-15T12:00:00Z"},
    }
    assert answer.headers["Retry-After"] == "21600"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert "Replay-Nonce" not in answer.headers


@pytest.mark.requirement("ARI-M13")
async def test_head_is_answered_as_get(edge: Edge) -> None:
    answer = await edge.http.head(f"{INFO}/known.certificate")
    assert (answer.status, answer.headers["Retry-After"]) == (200, "21600")


@pytest.mark.requirement("ARI-M5")
async def test_a_certificate_that_is_not_ours_is_not_found(edge: Edge) -> None:
    assert (await problem_of(await edge.http.get(f"{INFO}/other.certificate")))["status"] == 404
    assert (await edge.http.get("/acme/pki/none/renewal-info/known.certificate")).status == 404


async def test_it_is_not_read_by_post(edge: Edge) -> None:
    assert (await edge.post(f"{INFO}/known.certificate")).status == 405


@pytest.mark.requirement("ARI-M1", "C13")
async def test_the_directory_tells_where_it_is(edge: Edge) -> None:
    directory = await (await edge.http.get("/acme/pki/web/directory")).json()
    assert directory["renewalInfo"] == f"{EXTERNAL_URL}{INFO}"
