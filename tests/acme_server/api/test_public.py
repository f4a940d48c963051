from collections.abc import AsyncIterator

import pytest

from acme_server.nonces import Nonces
from kms.clock import system_entropy
from tests.support.acme import EXTERNAL_URL
from tests.support.domain import World, running_world
from tests.support.server import Server, running_replica, running_server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        running.kid = running.opened()
        yield running


@pytest.mark.requirement("M47", "M72", "M73", "M74", "C16")
async def test_head_new_nonce_is_200_and_get_204_both_without_a_body(server: Server) -> None:
    for method, status in (("HEAD", 200), ("GET", 204)):
        answer = await server.http.request(method, "/acme/pki/web/new-nonce")
        assert (answer.status, await answer.read(), answer.headers["Cache-Control"]) == (status, b"", "no-store")
        assert server.nonces.redeem(server.nonces.read(answer.headers["Replay-Nonce"]))
        assert answer.headers["Link"] == f'<{EXTERNAL_URL}/acme/pki/web/directory>;rel="index"'


@pytest.mark.requirement("M28")
async def test_new_nonce_and_directory_may_be_read_by_an_account(server: Server) -> None:
    assert (await server.post("/acme/pki/web/new-nonce")).status == 204
    answer = await server.post("/acme/pki/web/directory")
    assert answer.json["newOrder"] == f"{EXTERNAL_URL}/acme/pki/web/new-order"
    for path in ("new-nonce", "directory"):
        assert (await server.post(f"/acme/pki/web/{path}", {})).status == 400


@pytest.mark.requirement("M47", "M49", "M50")
async def test_the_directory_tells_what_the_profile_says(server: Server) -> None:
    server.world.configure(
        terms_of_service="https://example.com/tos",
        website="https://example.com",
        caa_identities=("example.com",),
        external_account_binding="Disabled",
        description="Certificates for web servers",
    )
    answer = await server.get("/acme/pki/web/directory")
    assert answer.json["meta"] == {
        "termsOfService": "https://example.com/tos",
        "website": "https://example.com",
        "caaIdentities": ["example.com"],
        "externalAccountRequired": False,
        "description": "Certificates for web servers",
    }
    assert "Replay-Nonce" not in answer.headers


async def test_the_directory_of_a_profile_that_does_not_exist_is_not_found(server: Server) -> None:
    assert (await server.http.get("/acme/pki/none/directory")).status == 404
    server.world.profiles.spoil("pki", "web")
    assert (await server.http.get("/acme/pki/web/directory")).status == 503


def without_a_key(world: World) -> Nonces:
    return Nonces(clock=world.clock, entropy=system_entropy)


@pytest.mark.requirement("SEC19", "C6")
async def test_without_a_nonce_key_nonces_are_asked_for_again_later() -> None:
    async with running_world() as world, running_replica(world, without_a_key(world)) as server:
        answer = await server.get("/acme/pki/web/new-nonce", "HEAD")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        answer = await server.post("/acme/pki/web/new-order", kid=server.opened())
        assert answer.status == 503
        assert "Replay-Nonce" not in answer.headers


async def test_people_are_told_what_this_is(server: Server) -> None:
    answer = await server.http.get("/")
    text = await answer.text()
    assert answer.content_type == "text/html"
    assert f"{EXTERNAL_URL}/acme/&lt;namespace&gt;/&lt;profile&gt;/directory" in text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")


async def test_readiness_says_what_is_missing(server: Server) -> None:
    assert (await server.http.get("/healthz")).status == 200
    assert (await server.http.get("/readyz")).status == 200
    server.readiness.require({"the moon": lambda: False, "the sun": lambda: True})
    answer = await server.http.get("/readyz")
    assert (answer.status, await answer.text()) == (503, "waiting for the moon\n")
    server.readiness.shutting_down = True
    answer = await server.http.get("/readyz")
    assert (answer.status, await answer.text()) == (503, "shutting down\n")


async def test_a_server_that_is_to_end_closes_each_connection_that_it_has_answered_on(server: Server) -> None:
    assert "Connection" not in (await server.http.get("/acme/pki/web/new-nonce")).headers
    server.readiness.shutting_down = True
    answer = await server.http.get("/acme/pki/web/new-nonce")
    assert (answer.status, answer.headers["Connection"]) == (204, "close")
