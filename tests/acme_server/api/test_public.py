from collections.abc import AsyncIterator

import pytest

from tests.support.acme import EXTERNAL_URL, Edge, profile, running_edge


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running


@pytest.mark.requirement("M47", "M72", "M73", "M74", "C16")
async def test_head_new_nonce_is_200_and_get_204_both_without_a_body(edge: Edge) -> None:
    for method, status in (("HEAD", 200), ("GET", 204)):
        answer = await edge.http.request(method, "/acme/pki/web/new-nonce")
        assert (answer.status, await answer.read(), answer.headers["Cache-Control"]) == (status, b"", "no-store")
        assert edge.nonces.redeem(edge.nonces.read(answer.headers["Replay-Nonce"]))
        assert answer.headers["Link"] == f'<{EXTERNAL_URL}/acme/pki/web/directory>;rel="index"'


@pytest.mark.requirement("M28")
async def test_new_nonce_and_directory_may_be_read_by_an_account(edge: Edge) -> None:
    assert (await edge.post("/acme/pki/web/new-nonce")).status == 204
    answer = await edge.post("/acme/pki/web/directory")
    assert (await answer.json())["newOrder"] == f"{EXTERNAL_URL}/acme/pki/web/new-order"
    for path in ("new-nonce", "directory"):
        assert (await edge.post(f"/acme/pki/web/{path}", {})).status == 400


@pytest.mark.requirement("M47", "M49", "M50")
async def test_the_directory_tells_what_the_profile_says() -> None:
    told = profile(
        terms_of_service="https://example.com/tos",
        website="https://example.com",
        caa_identities=("example.com",),
        external_account_binding="Disabled",
    )
    async with running_edge(told) as edge:
        answer = await edge.http.get("/acme/pki/web/directory")
        assert (await answer.json())["meta"] == {
            "termsOfService": "https://example.com/tos",
            "website": "https://example.com",
            "caaIdentities": ["example.com"],
            "externalAccountRequired": False,
        }
        assert "Replay-Nonce" not in answer.headers


async def test_the_directory_of_a_profile_that_does_not_exist_is_not_found(edge: Edge) -> None:
    assert (await edge.http.get("/acme/pki/none/directory")).status == 404
    edge.profiles.unavailable = True
    assert (await edge.http.get("/acme/pki/web/directory")).status == 503


@pytest.mark.requirement("SEC19", "C6")
async def test_without_a_nonce_key_nonces_are_asked_for_again_later() -> None:
    async with running_edge() as edge:
        edge.nonces._keys = ()
        answer = await edge.http.head("/acme/pki/web/new-nonce")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        answer = await edge.post("/acme/pki/web/new-order")
        assert answer.status == 503
        assert "Replay-Nonce" not in answer.headers


async def test_people_are_told_what_this_is(edge: Edge) -> None:
    answer = await edge.http.get("/")
    text = await answer.text()
    assert answer.content_type == "text/html"
    assert f"{EXTERNAL_URL}/acme/&lt;namespace&gt;/&lt;profile&gt;/directory" in text
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"


async def test_readiness_says_what_is_missing(edge: Edge) -> None:
    assert (await edge.http.get("/healthz")).status == 200
    assert (await edge.http.get("/readyz")).status == 200
    edge.readiness.require({"the moon": lambda: False, "the sun": lambda: True})
    answer = await edge.http.get("/readyz")
    assert (answer.status, await answer.text()) == (503, "waiting for the moon\n")
    edge.readiness.shutting_down = True
    assert "shutting down" in await (await edge.http.get("/readyz")).text()


async def test_a_server_that_is_to_end_closes_each_connection_that_it_has_answered_on(edge: Edge) -> None:
    assert "Connection" not in (await edge.http.get("/acme/pki/web/new-nonce")).headers
    edge.readiness.shutting_down = True
    answer = await edge.http.get("/acme/pki/web/new-nonce")
    assert (answer.status, answer.headers["Connection"]) == (204, "close")
