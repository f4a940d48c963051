from __future__ import annotations

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from e2e.load import floor
from e2e.load.bare import Parts, application, cpu_of, verify
from e2e.load.keys import ES256, AccountKey, certificate_key, certificate_request
from e2e.load.parts import check, leaf
from e2e.support import http01
from tests.support.recorded_writes import recorded_writes

SHORT = floor.RoundSize(requests=16, orders=8, works=dict.fromkeys(floor.RoundSize().works, 8))


async def test_every_part_of_an_order_is_measured() -> None:
    answerer = http01.Answerer(thumbprint="k")
    async with http01.listening(answerer) as port, recorded_writes() as (api, written):
        challenge = f"http://127.0.0.1:{port}{http01.PREFIX}t"
        async with floor.measuring(challenge=challenge, api=api, size=SHORT) as measured:
            await measured.warm_up()
            await measured.round()
            await measured.round()
    assert measured.rounds == 2
    assert len(answerer.requests) == 8 + 2 * (8 + 8)  # of the warm-up, then of bare orders and of the part by itself
    assert len(written) == 3 * (8 + 2 * (8 + 8))
    assert 0 < measured.order < 0.1
    assert measured.parts.keys() == floor.shares(1).keys()
    assert all(0 <= seconds < 0.1 for seconds in measured.parts.values())
    assert measured.parts[floor.REQUEST] > 0


async def test_writes_are_left_out_where_there_is_no_api_server() -> None:
    async with http01.listening(http01.Answerer(thumbprint="k")) as port:
        challenge = f"http://127.0.0.1:{port}{http01.PREFIX}t"
        async with floor.measuring(challenge=challenge, api=None, size=SHORT) as measured:
            await measured.round()
    assert measured.parts.keys() == floor.shares(1).keys() - {floor.WRITE}


def test_the_bare_server_verifies() -> None:
    key, other = AccountKey.generate(), AccountKey.generate()
    body = key.jws({"alg": "ES256"}, {"a": 1})
    verify(body, key.private.public_key())
    with pytest.raises(InvalidSignature):
        verify(body, other.private.public_key())


@pytest.mark.parametrize("names", [1, 2, 10])
def test_a_bare_order_has_every_part_as_often_as_an_order(names: int) -> None:
    steps, count = floor.bare_order(names), floor.shares(names)
    assert len(steps) == count[floor.REQUEST] == 6 + 3 * names
    assert sum(step in {"create", "store", "issue"} for step in steps) == count[floor.WRITE] == 3
    assert steps.count("validate") == count[floor.FETCH] == names
    assert steps.count("issue") == count[floor.CHECK] == count[floor.SIGNATURE] == 1
    assert steps.index("create") < steps.index("validate") < steps.index("store") < steps.index("issue")


async def test_a_request_with_a_wrong_signature_is_not_served() -> None:
    key, other = AccountKey.generate(), AccountKey.generate()
    async with aiohttp.ClientSession() as session:
        parts = Parts(session, "", None)
        async with TestClient(TestServer(application(key.private.public_key(), parts))) as client:
            assert (await client.post("/create", data=key.jws({"alg": "ES256"}, None))).status == 200
            assert (await client.post("/create", data=other.jws({"alg": "ES256"}, None))).status == 500


async def test_a_fetch_that_is_cut_off_is_tried_again_and_given_up_in_the_end() -> None:
    answerer = http01.Answerer(thumbprint="k")
    answerer.behave("t", http01.Raw(), http01.Text("t.k"))
    async with http01.listening(answerer) as port, aiohttp.ClientSession() as session:
        parts = Parts(session, f"http://127.0.0.1:{port}{http01.PREFIX}t", None)
        await parts.fetch()
        assert answerer.reply(f"{http01.PREFIX}t") == http01.Text("t.k")
        answerer.behave("t", http01.Raw())
        with pytest.raises(aiohttp.ClientError):
            await parts.fetch()


async def test_work_is_done_as_often_as_it_should_be() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert await cpu_of(work, 20) >= 0
    assert len(done) == 20


def test_a_request_is_checked_and_its_names_are_read() -> None:
    der = certificate_request(["a.test", "b.test"], certificate_key())
    assert check(der) == {"a.test", "b.test"}
    with pytest.raises(ValueError, match="does not verify"):
        check(der[:-1] + bytes([der[-1] ^ 1]))


def test_the_certificate_of_the_floor_is_a_server_certificate() -> None:
    issuer = certificate_key()
    certificate = leaf(issuer, certificate_key().public_key())
    issuer.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes, ES256)
    assert len(certificate.extensions) == 6
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
