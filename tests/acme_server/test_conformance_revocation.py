"""revokeCert on the whole server (RFC 8555, 7.6; M136 to M142, SEC22, SEC24), and what revocation lists say of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.certificates.crl import DERFile
from kms.pki.certificate import certificate_pem, issuer_id
from kms.pki.keys import PrivateKey
from kms.resources.policies import DNSNameRules, PolicySpec
from tests.support import pki
from tests.support.acme import ClientKey, b64
from tests.support.domain import NAMESPACE
from tests.support.server import Answer, Server, running_replica, running_server

KEYS: list[tuple[str, str, int | None]] = [
    ("ES256", "ECDSA", 256),
    ("ES384", "ECDSA", 384),
    ("RS256", "RSA", 2048),
    ("EdDSA", "Ed25519", None),
]

NEXT_LIST = timedelta(seconds=6)
"""Longer than the longest pause between two revocation lists."""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        running.world.services.state.order_index.mark_complete()
        await running.register()
        yield running


async def stranger_to(server: Server) -> Server:
    """A client of the same server with an account of its own."""
    other = replace(server, key=ClientKey(), kid=None)
    await other.register()
    return other


async def certificate_of(server: Server, *names: str, key: PrivateKey | None = None) -> bytes:
    """A new certificate, in DER."""
    order = await server.ready(*names)
    request = pki.csr(*names or ("www.example.com",), signed_with=key)
    certificate = await server.certificate(await server.finalize(order, request))
    return certificate.public_bytes(Encoding.DER)


async def revoke(
    server: Server, der: bytes, *, key: PrivateKey | None = None, algorithm: str = "ES256", **more: Any
) -> Answer:
    url = f"{server.base}/revoke-cert"
    payload = {"certificate": b64(der), **more}
    if key is None:
        return await server.post(url, payload)
    signing = ClientKey(algorithm, key)
    return await server.post(url, payload, key=signing, jwk=signing.jwk)


async def listed(server: Server) -> x509.CertificateRevocationList:
    document: DERFile = await server.world.services.crls.current(NAMESPACE, "ca")
    return x509.load_der_x509_crl(document.der)


def reason_in(revoked: x509.CertificateRevocationList, der: bytes) -> str | None:
    """The reason on the list; "unspecified" for an entry without, None for no entry."""
    found = revoked.get_revoked_certificate_by_serial_number(x509.load_der_x509_certificate(der).serial_number)
    if found is None:
        return None
    return next((each.value.reason.value for each in found.extensions), "unspecified")


@pytest.mark.requirement("M136", "M138", "SEC22", "SEC60")
async def test_the_account_that_it_was_issued_to_revokes_a_certificate(server: Server) -> None:
    der = await certificate_of(server)
    assert reason_in(await listed(server), der) is None
    answer = await revoke(server, der, reason=4)
    assert (answer.status, answer.text) == (200, "")
    server.world.clock.ahead += NEXT_LIST
    assert reason_in(await listed(server), der) == "superseded"
    leaf = x509.load_der_x509_certificate(der)
    issuer, serial_number = issuer_id(leaf), f"{leaf.serial_number:x}"
    certificate = server.world.services.state.certificates.certificate(NAMESPACE, issuer, serial_number)
    assert certificate is not None
    stored = await server.world.services.state.orders.read_live(*certificate.order)
    assert stored is not None
    (ready,) = stored.status.conditions
    assert (ready.status, ready.reason) == ("False", "Revoked")
    assert "superseded" in ready.message
    assert stored.status.state == "valid"


@pytest.mark.requirement("M17", "M136", "SEC22")
@pytest.mark.parametrize(("algorithm", "kind", "size"), KEYS)
async def test_whoever_holds_its_key_revokes_a_certificate_without_an_account(
    server: Server, algorithm: str, kind: str, size: int | None
) -> None:
    algorithms = ("ECDSA-P256", "ECDSA-P384", "RSA-2048", "Ed25519")
    signatures = ("ECDSA-SHA256", "RSA-SHA256", "Ed25519")
    server.world.configure(
        policy=PolicySpec(
            dns_names=DNSNameRules(allowed=("**.example.com",)),
            key_algorithms=algorithms,
            signature_algorithms=signatures,
        )
    )
    key = pki.key(kind, size, which="revoked")
    der = await certificate_of(server, key=key)
    nobody = replace(server, key=ClientKey(), kid=None)
    assert (await revoke(nobody, der, key=key, algorithm=algorithm)).status == 200
    server.world.clock.ahead += NEXT_LIST
    assert reason_in(await listed(server), der) == "unspecified"


@pytest.mark.requirement("M136", "M137", "SEC22")
async def test_an_account_that_has_proven_all_its_names_revokes_a_certificate(server: Server) -> None:
    der = await certificate_of(server, "a.example.com", "b.example.com")
    stranger = await stranger_to(server)
    await stranger.ready("a.example.com")
    refused = await revoke(stranger, der)
    assert (refused.status, refused.problem["type"]) == (403, "unauthorized")
    await stranger.ready("b.example.com")
    assert (await revoke(stranger, der)).status == 200


@pytest.mark.requirement("SEC22", "M135")
async def test_an_authorization_that_was_given_up_or_has_expired_counts_for_nothing(server: Server) -> None:
    der = await certificate_of(server)
    stranger = await stranger_to(server)
    order = await stranger.ready()
    (authorization,) = order.json["authorizations"]
    await stranger.post(authorization, {"status": "deactivated"})
    assert (await revoke(stranger, der)).status == 403
    await stranger.ready()
    server.world.clock.ahead += timedelta(days=2)
    assert (await revoke(stranger, der)).status == 403


@pytest.mark.requirement("M137", "SEC22")
async def test_others_are_not_even_told_that_a_certificate_was_revoked(server: Server) -> None:
    der = await certificate_of(server)
    stranger = await stranger_to(server)
    before = await revoke(stranger, der, reason=8)
    assert (await revoke(server, der)).status == 200
    after = await revoke(stranger, der, reason=8)
    assert (before.status, before.text) == (after.status, after.text)
    assert before.problem["type"] == "unauthorized"
    by_key = await revoke(server, der, key=pki.key(which="other"))
    assert (by_key.status, by_key.problem["type"]) == (403, "unauthorized")


@pytest.mark.requirement("SEC22")
async def test_the_key_of_the_account_is_not_that_of_the_certificate(server: Server) -> None:
    der = await certificate_of(server)
    answer = await revoke(server, der, key=server.key.private)
    assert (answer.status, answer.problem["type"]) == (403, "unauthorized")


@pytest.mark.requirement("M139", "SEC22")
async def test_a_second_revocation_says_that_it_was_done(server: Server) -> None:
    der = await certificate_of(server)
    assert (await revoke(server, der, reason=1)).status == 200
    for answer in (await revoke(server, der, reason=1), await revoke(server, der, key=pki.key(), reason=1)):
        assert (answer.status, answer.problem["type"]) == (400, "alreadyRevoked")


@pytest.mark.requirement("M140", "SEC22")
@pytest.mark.parametrize("reason", [-1, 2, 6, 7, 8, 9, 10, 11, 2**40])
async def test_reasons_that_are_not_for_subscribers_are_refused_with_those_that_are(
    server: Server, reason: int
) -> None:
    der = await certificate_of(server)
    answer = await revoke(server, der, reason=reason)
    assert (answer.status, answer.problem["type"]) == (400, "badRevocationReason")
    for allowed in ("0 (", "1 (keyCompromise)", "3 (", "4 (superseded)", "5 ("):
        assert allowed in answer.problem["detail"]
    assert reason_in(await listed(server), der) is None


@pytest.mark.requirement("S141")
@pytest.mark.parametrize("more", [{}, {"reason": 0}, {"reason": None}])
async def test_without_a_reason_the_list_says_none(server: Server, more: dict[str, Any]) -> None:
    der = await certificate_of(server)
    assert (await revoke(server, der, **more)).status == 200
    server.world.clock.ahead += NEXT_LIST
    assert reason_in(await listed(server), der) == "unspecified"


@pytest.mark.requirement("SEC25")
async def test_whoever_proves_with_its_key_that_it_is_compromised_raises_the_reason(server: Server) -> None:
    der = await certificate_of(server)
    assert (await revoke(server, der, reason=4)).status == 200
    server.world.clock.ahead += NEXT_LIST
    before = await listed(server)
    assert (await revoke(server, der, key=pki.key(), reason=4)).status == 400
    assert (await revoke(server, der, reason=1)).status == 400, "an account has not proven it"
    assert (await revoke(server, der, key=pki.key(), reason=1)).status == 200
    server.world.clock.ahead += NEXT_LIST
    after = await listed(server)
    assert (reason_in(before, der), reason_in(after, der)) == ("superseded", "keyCompromise")
    (entry,) = after
    assert entry.revocation_date_utc == next(iter(before)).revocation_date_utc
    number = x509.CRLNumber
    assert (
        after.extensions.get_extension_for_class(number).value.crl_number
        > before.extensions.get_extension_for_class(number).value.crl_number
    )


@pytest.mark.requirement("M142", "SEC24")
async def test_what_is_no_certificate_of_the_profile_is_not_found(server: Server) -> None:
    der = await certificate_of(server)
    known = x509.load_der_x509_certificate(der)
    impostor = pki.root(serial=known.serial_number).certificate.public_bytes(Encoding.DER)
    flipped = der[:-1] + bytes((der[-1] ^ 1,))
    for unknown in (impostor, flipped, pki.root().certificate.public_bytes(Encoding.DER)):
        answer = await revoke(server, unknown)
        assert (answer.status, answer.problem["type"]) == (404, "malformed")
        assert answer.problem["detail"] == "There is no such certificate in this profile."
    assert (await revoke(server, der)).status == 200


@pytest.mark.requirement("M142", "SEC40")
@pytest.mark.parametrize(
    "certificate",
    ["", "AAAA", "not base64url!", "TWFu=", b64(b"-----BEGIN CERTIFICATE-----"), b64(b"0" * 33_000), 7, None, ["x"]],
)
async def test_what_is_no_certificate_at_all_is_malformed(server: Server, certificate: Any) -> None:
    answer = await server.post(f"{server.base}/revoke-cert", {"certificate": certificate})
    assert (answer.status, answer.problem["type"]) == (400, "malformed")
    assert "certificate" in answer.problem["detail"]


@pytest.mark.requirement("M142", "SEC36")
async def test_neither_pem_nor_anything_around_the_der_is_taken(server: Server) -> None:
    der = await certificate_of(server)
    pem = certificate_pem(x509.load_der_x509_certificate(der)).encode()
    for wrong in (pem, der + b"\0", b"\0" + der, der[:-1], der + der):
        answer = await revoke(server, wrong)
        assert (answer.status, answer.problem["type"]) == (400, "malformed")


@pytest.mark.parametrize("reason", ["1", 1.5, True, [1]])
async def test_a_reason_that_is_no_number_is_malformed(server: Server, reason: Any) -> None:
    answer = await revoke(server, b"0", reason=reason)
    assert (answer.status, answer.problem["type"]) == (400, "malformed")
    assert "reason" in answer.problem["detail"]


async def test_a_server_that_does_not_know_all_certificates_yet_asks_to_come_again(server: Server) -> None:
    der = await certificate_of(server)
    world = server.world.another()
    async with running_replica(world, server.nonces) as fresh:
        by_key = await revoke(replace(fresh, key=server.key, kid=server.kid), der, key=pki.key())
        assert by_key.status == 503
        by_account = await revoke(replace(fresh, key=server.key, kid=server.kid), der)
        assert by_account.status == 200, "the orders of an account can be asked for"


async def test_an_expired_certificate_is_only_revoked_for_the_sake_of_its_key(server: Server) -> None:
    der = await certificate_of(server)
    server.world.clock.ahead += timedelta(days=31)
    answer = await revoke(server, der, reason=4)
    assert (answer.status, answer.problem["type"]) == (403, "unauthorized")
    assert (await revoke(server, der, key=pki.key(), reason=1)).status == 200


@pytest.mark.requirement("SEC07")
async def test_an_account_that_another_replica_has_deactivated_revokes_nothing(server: Server, other: Server) -> None:
    der = await certificate_of(server)
    assert server.kid is not None
    assert (await other.post(server.kid, {"status": "deactivated"})).status == 200
    answer = await revoke(server, der)
    assert (answer.status, answer.problem["type"]) == (401, "unauthorized")


@pytest.mark.requirement("M139", "SEC22", "SEC56")
async def test_of_many_at_once_on_two_servers_exactly_one_revokes(server: Server, other: Server) -> None:
    der = await certificate_of(server)
    other.world.services.state.order_index.mark_complete()
    answers = await asyncio.gather(*(revoke(at, der, reason=4) for _ in range(8) for at in (server, other)))
    assert sorted(each.status for each in answers) == [200] + [400] * 15
    assert {each.problem["type"] for each in answers if each.status == 400} == {"alreadyRevoked"}


async def test_revoking_is_two_writes_and_one_read(server: Server) -> None:
    der = await certificate_of(server)
    before = len(server.world.api.requests)
    assert (await revoke(server, der)).status == 200
    assert server.world.calls(before) == ["get acmeaccounts", "update acmeorders", "create revocationrecords"]


@pytest.mark.requirement("SEC37")
async def test_whoever_does_not_hold_the_key_asks_the_api_server_nothing(server: Server) -> None:
    der = await certificate_of(server)
    server.world.services.state.orders.clear()
    before = len(server.world.api.requests)
    assert (await revoke(server, der, key=pki.key(which="other"))).status == 403
    assert (await revoke(server, pki.root().certificate.public_bytes(Encoding.DER), key=pki.key())).status == 403
    assert server.world.calls(before) == []
