from __future__ import annotations

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from e2e.load import floor
from e2e.load.bare import application, verify
from e2e.load.keys import ES256, AccountKey, certificate_key, certificate_request


async def test_every_part_of_an_order_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in ("REQUESTS", "WRITES", "FETCHES", "CHECKS", "SIGNATURES"):
        monkeypatch.setattr(floor, count, 8)
    writes = 0

    async def three_writes() -> None:
        nonlocal writes
        writes += 3

    async with floor.measuring(three_writes) as measured:
        await measured.round()
        await measured.round()
    assert measured.rounds == 2
    assert writes == 2 * 3 * 8
    assert measured.parts.keys() == floor.AN_ORDER.keys()
    assert all(0 <= seconds < 0.1 for seconds in measured.parts.values())
    assert measured.parts[floor.REQUEST] > 0


async def test_writes_are_left_out_where_there_is_no_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in ("REQUESTS", "FETCHES", "CHECKS", "SIGNATURES"):
        monkeypatch.setattr(floor, count, 8)
    async with floor.measuring(None) as measured:
        await measured.round()
    assert floor.WRITE not in measured.parts


def test_the_bare_server_verifies() -> None:
    key, other = AccountKey.generate(), AccountKey.generate()
    body = key.jws({"alg": "ES256"}, {"a": 1})
    verify(body, key.private.public_key())
    with pytest.raises(InvalidSignature):
        verify(body, other.private.public_key())


async def test_the_bare_server_answers_requests_challenges_and_how_much_cpu_it_used() -> None:
    key = AccountKey.generate()
    async with TestClient(TestServer(application(key.private.public_key()))) as client:
        answer = await client.post("/", data=key.jws({"alg": "ES256"}, None))
        assert json.loads(await answer.text()) == {"status": "ready"}
        assert len(await (await client.get("/.well-known/acme-challenge/t")).read()) == 87
        assert float(await (await client.get("/cpu")).text()) > 0


def test_a_request_is_checked_and_its_names_are_read() -> None:
    der = certificate_request(["a.test", "b.test"], certificate_key())
    assert floor.check(der) == {"a.test", "b.test"}
    with pytest.raises(ValueError, match="does not verify"):
        floor.check(der[:-1] + bytes([der[-1] ^ 1]))


def test_the_certificate_of_the_floor_is_a_server_certificate() -> None:
    issuer = certificate_key()
    certificate = floor.leaf(issuer, certificate_key().public_key())
    issuer.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes, ES256)
    assert len(certificate.extensions) == 6
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
