"""SEC84: keys with which anyone can sign open no account, take over none and get no certificate."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from acme_server.jose.jwk import stored_account_key
from acme_server.problems import ProblemType, Refused
from kms.resources.policies import DNSNameRules, PolicySpec
from tests.support import pki
from tests.support.acme import ClientKey, b64, signed
from tests.support.server import Server, running_server
from tests.support.weak_keys import NON_CANONICAL, SMALL_ORDER, signature_of_nobody

pytestmark = pytest.mark.requirement("SEC84")

WEAK = [*SMALL_ORDER, *NON_CANONICAL]


class Nobody(ClientKey):
    """Signs with a public key alone. For the neutral element the signature is good, whatever the message."""

    def __init__(self, encoded: bytes = SMALL_ORDER[0]) -> None:
        self.algorithm = "EdDSA"
        self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(encoded)}

    def sign(self, message: bytes) -> bytes:  # noqa: ARG002 - it does not matter
        return signature_of_nobody()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        await running.register()
        yield running


async def test_nobody_opens_no_account(server: Server) -> None:
    nobody = Nobody()
    answer = await server.register(nobody)
    assert (answer.status, answer.problem["type"]) == (400, "badPublicKey"), answer.text
    assert "small order" in answer.problem["detail"]


async def test_no_account_gets_the_key_of_nobody(server: Server) -> None:
    nobody, url = Nobody(), f"{server.base}/key-change"
    members = {"account": server.kid, "oldKey": server.key.jwk}
    answer = await server.post(url, signed(nobody, json.dumps(members).encode(), jwk=nobody.jwk, url=url))
    assert (answer.status, answer.problem["type"]) == (400, "badPublicKey"), answer.text


async def test_nobody_gets_no_certificate(server: Server) -> None:
    rules = PolicySpec(
        dns_names=DNSNameRules(allowed=("**.example.com",)),
        key_algorithms=("Ed25519",),
        signature_algorithms=("Ed25519",),
    )
    server.world.configure(policy=rules)
    private = Ed25519PrivateKey.generate()
    der = pki.csr("www.example.com", signed_with=private)
    der = der.replace(private.public_key().public_bytes_raw(), SMALL_ORDER[0])[:-64] + signature_of_nobody()
    answer = await server.finalize(await server.ready(), der)
    assert (answer.status, answer.problem["type"]) == (400, "badCSR"), answer.text
    assert "small order" in answer.problem["detail"]


async def test_nobody_revokes_nothing(server: Server) -> None:
    certificate = await server.certificate(await server.finalize(await server.ready()))
    nobody = Nobody()
    payload = {"certificate": b64(certificate.tbs_certificate_bytes)}
    answer = await server.post(f"{server.base}/revoke-cert", payload, key=nobody, jwk=nobody.jwk)
    assert (answer.status, answer.problem["type"]) == (400, "badPublicKey")


@pytest.mark.parametrize("encoded", WEAK, ids=bytes.hex)
def test_a_stored_account_with_such_a_key_is_refused_too(encoded: bytes) -> None:
    with pytest.raises(Refused) as refused:
        stored_account_key(json.dumps(Nobody(encoded).jwk))
    assert refused.value.type == ProblemType.BAD_PUBLIC_KEY
