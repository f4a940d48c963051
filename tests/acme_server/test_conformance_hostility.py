"""Requests that are wrong on purpose, on the whole server: refused in words of the protocol, and nothing stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kms.pki.csr import MAXIMUM_REQUEST
from tests.support import csrs, pki
from tests.support.acme import ClientKey, b64, flattened
from tests.support.server import Server

NAME = "www.example.com"


def signed_by(private: Any, algorithm: Any = None) -> bytes:
    return pki.csr_builder(NAME).sign(private, algorithm).public_bytes(Encoding.DER)


def with_names(*names: x509.GeneralName) -> bytes:
    return pki.csr(extensions=[(x509.SubjectAlternativeName(names), False)])


def with_subject(*attributes: x509.NameAttribute[Any]) -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes)).add_extension(names, False)
    return pki.signed(builder, pki.key())


def with_changed_signature() -> bytes:
    der = bytearray(pki.csr(NAME))
    der[-1] ^= 1
    return bytes(der)


def with_many_extensions() -> bytes:
    unknown = [x509.ObjectIdentifier(f"1.3.6.1.4.1.55555.{number}") for number in range(40)]
    return pki.csr(NAME, extensions=[(x509.UnrecognizedExtension(each, b"\x05\0"), False) for each in unknown])


DNS = x509.DNSName(NAME)
CERT_SIGN = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
HOSTILE: dict[str, Callable[[], bytes]] = {
    "a CA": lambda: pki.csr(NAME, extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)]),
    "the usage of a CA": lambda: pki.csr(NAME, extensions=[(CERT_SIGN, True)]),
    "a name more": lambda: pki.csr(NAME, "evil.example.com"),
    "a name more in the subject": lambda: with_subject(x509.NameAttribute(NameOID.COMMON_NAME, "evil.example.com")),
    "two common names": lambda: with_subject(
        *(x509.NameAttribute(NameOID.COMMON_NAME, each) for each in (NAME, "evil"))
    ),
    "two lists of names": lambda: csrs.request(
        csrs.alternative_names(NAME), csrs.alternative_names("evil.example.com")
    ),
    "two lists of names in two attributes": lambda: csrs.request(
        csrs.alternative_names(NAME), after=[csrs.requested(csrs.alternative_names("evil.example.com"))]
    ),
    "a wildcard": lambda: pki.csr(f"*.{NAME}"),
    "an address": lambda: pki.csr(NAME, "127.0.0.1"),
    "an email address": lambda: with_names(DNS, x509.RFC822Name("root@example.com")),
    "a URI": lambda: with_names(DNS, x509.UniformResourceIdentifier("spiffe://cluster/admin")),
    "a user principal name": lambda: with_names(
        DNS, x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05admin")
    ),
    "a name with a zero byte": lambda: with_names(DNS, x509.DNSName("www.example.com\0.evil.com")),
    "a name that is an address": lambda: with_names(DNS, x509.DNSName("127.0.0.1")),
    "sixteen kibibytes of names": lambda: pki.csr(*(f"n{number}.example.com" for number in range(850))),
    "more than sixteen kibibytes": lambda: pki.csr(*(f"n{number}.example.com" for number in range(1100))),
    "very many extensions": with_many_extensions,
    "a short RSA key": lambda: signed_by(rsa.generate_private_key(65537, 1024), hashes.SHA256()),  # noqa: S505 - the point
    "an RSA key with a small exponent": lambda: signed_by(rsa.generate_private_key(3, 2048), hashes.SHA256()),
    "an odd size of RSA key": lambda: signed_by(rsa.generate_private_key(65537, 2056), hashes.SHA256()),
    "a DSA key": lambda: signed_by(dsa.generate_private_key(2048), hashes.SHA256()),
    "a key on secp256k1": lambda: signed_by(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
    "an Ed448 key": lambda: signed_by(ed448.Ed448PrivateKey.generate()),
    "a signature that does not fit": with_changed_signature,
    "PEM": lambda: x509.load_der_x509_csr(pki.csr(NAME)).public_bytes(Encoding.PEM),
    "bytes behind it": lambda: pki.csr(NAME) + b"\0",
    "half of one": lambda: pki.csr(NAME)[:-40],
    "nothing": lambda: b"",
    "nested sequences": lambda: b"\x30\x80" * (MAXIMUM_REQUEST // 2),
}


@pytest.mark.requirement("S114", "M112", "S156", "SEC28", "SEC29", "SEC30", "SEC32", "SEC36", "SEC40")
@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_request_is_a_bad_csr_and_the_order_stays_ready(server: Server, what: str) -> None:
    order = await server.ready(NAME)
    refused = await server.finalize(order, HOSTILE[what]())
    assert (refused.status, refused.problem["type"]) == (400, "badCSR"), refused.text
    assert refused.problem["detail"].isprintable()
    assert len(refused.text) < 4096
    assert (await server.post(order.location)).json["status"] == "ready"
    assert (await server.finalize(order)).json["status"] == "valid"


@pytest.mark.requirement("SEC29", "PROF-M7")
async def test_whatever_a_request_wishes_the_certificate_says_what_the_profile_says(server: Server) -> None:
    key_id = x509.SubjectKeyIdentifier(b"k" * 20)
    wishes: list[tuple[x509.ExtensionType, bool]] = [
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.TIME_STAMPING]), True),
        (x509.BasicConstraints(ca=False, path_length=None), False),
        (key_id, False),
        (x509.AuthorityKeyIdentifier(b"a" * 20, None, None), False),
        (x509.OCSPNoCheck(), False),
        (x509.NameConstraints([x509.DNSName("com")], None), True),
        (x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.1"), None)]), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\0"), True),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.24"), b"0\3\2\1\4"), False),
    ]
    organization = with_subject(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Somebody Else"))
    leaves = []
    for request in (pki.csr(NAME), pki.csr(NAME, extensions=wishes), organization):
        order = await server.finalize(await server.ready(NAME), request)
        chain = await server.post(order.json["certificate"])
        leaves.append(x509.load_pem_x509_certificates(chain.text.encode())[0])
    assert len({leaf.subject for leaf in leaves}) == 1
    plain, wished, attributed = ({each.oid: each for each in leaf.extensions} for leaf in leaves)
    assert wished == attributed == plain
    assert not plain[x509.oid.ExtensionOID.BASIC_CONSTRAINTS].value.ca
    assert set(plain[x509.oid.ExtensionOID.EXTENDED_KEY_USAGE].value) <= {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }


def without(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, ...)


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no algorithm": (without("alg"), {}, "malformed"),
    "alg none": ({"alg": "none"}, {"signature": ""}, "badSignatureAlgorithm"),
    "a MAC with the public key": ({"alg": "HS256"}, {}, "badSignatureAlgorithm"),
    "RS1": ({"alg": "RS1"}, {}, "badSignatureAlgorithm"),
    "the algorithm of another key": ({"alg": "RS256"}, {}, "badSignatureAlgorithm"),
    "a critical extension": ({"crit": ["exp"], "exp": 0}, {}, "malformed"),
    "an unencoded payload": ({"b64": False, "crit": ["b64"]}, {}, "malformed"),
    "a url that is none": ({"url": 7}, {}, "malformed"),
    "another url": ({"url": "https://acme.example.com/"}, {}, "unauthorized"),
    "no url": (without("url"), {}, "malformed"),
    "no nonce": (without("nonce"), {}, "badNonce"),
    "a nonce that is made up": ({"nonce": b64(b"x" * 40)}, {}, "badNonce"),
    "a nonce that is no base64url": ({"nonce": "a+b/c="}, {}, "malformed"),
    "both keys": ({"jwk": ClientKey().jwk}, {}, "malformed"),
    "a path in the kid": ({"kid": "https://acme.example.com/acme/pki/web/accounts/../x"}, {}, "accountDoesNotExist"),
    "a kid elsewhere": ({"kid": "https://evil.example/acct/1"}, {}, "accountDoesNotExist"),
    "a very long kid": ({"kid": "https://acme.example.com/" + "a" * 20_000}, {}, "accountDoesNotExist"),
    "an unprotected header": ({}, {"header": {"alg": "none"}}, "malformed"),
    "several signatures": ({}, {"signatures": [{}]}, "malformed"),
    "a detached payload": ({}, {"payload": None}, "malformed"),
    "padding": ({}, {"payload": "e30="}, "malformed"),
    "white space": ({}, {"payload": "e3\n0"}, "malformed"),
    "no signature": ({}, {"signature": ""}, "malformed"),
    "zeros for a signature": ({}, {"signature": b64(bytes(64))}, "malformed"),
    "a signature that is too long": ({}, {"signature": b64(bytes(4096))}, "malformed"),
    "a header that is no object": ({}, {"protected": b64(b"[]")}, "malformed"),
    "a header with a member twice": ({}, {"protected": b64(b'{"alg":"ES256","alg":"none"}')}, "malformed"),
    "a header that nests": ({}, {"protected": b64(b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}")}, "malformed"),
    "a header that is no UTF-8": ({}, {"protected": b64(b'{"alg":"\xff"}')}, "malformed"),
}


@pytest.mark.requirement("M7", "M12", "M21", "M24", "M30", "M35", "SEC13", "SEC14", "SEC15", "SEC16", "SEC37", "SEC40")
@pytest.mark.parametrize("form", FORMS)
async def test_a_hostile_signature_is_refused_without_a_question_to_the_api_server(server: Server, form: str) -> None:
    header, members, type_ = FORMS[form]
    url = f"{server.base}/new-order"
    usual = {"alg": "ES256", "kid": server.kid, "nonce": server.nonces.issue(), "url": url}
    protected = {name: value for name, value in (usual | header).items() if value is not ...}
    jws = flattened(protected, b"{}", server.key.sign) | members
    before = len(server.world.api.requests)
    refused = await server.post(url, body=json.dumps(jws).encode())
    assert (refused.problem["type"], refused.status) == (type_, 403 if type_ == "unauthorized" else 400), refused.text
    assert server.world.calls(before) == []
    assert server.nonces.redeem(server.nonces.read(refused.headers["Replay-Nonce"]))


@pytest.mark.requirement("S39", "SEC37")
async def test_a_nonce_is_looked_at_before_account_and_signature_are(server: Server) -> None:
    url = f"{server.base}/new-order"
    before = len(server.world.api.requests)
    for kid in (server.kid, f"{server.base}/accounts/{'a' * 52}"):
        refused = await server.post(url, {}, key=ClientKey(), kid=kid, nonce=b64(b"x" * 40))
        assert (refused.status, refused.problem["type"]) == (400, "badNonce")
    assert server.world.calls(before) == []


@pytest.mark.requirement("S5")
async def test_who_does_not_say_what_program_it_is_is_served(server: Server) -> None:
    for headers in ({"User-Agent": ""}, {"Accept-Language": "tlh, *;q=0"}):
        answer = await server.http.get("/acme/pki/web/directory", headers=headers, skip_auto_headers=["User-Agent"])
        assert answer.status == 200


@pytest.mark.requirement("S105")
async def test_deactivating_an_account_leaves_its_certificates_alone(server: Server) -> None:
    await server.finalize(await server.ready(NAME))
    stored = [each for (plural, _, _), each in server.world.api.store.by_key.items() if plural == "acmeorders"]
    before = json.dumps(stored)
    assert server.kid is not None
    assert (await server.post(server.kid, {"status": "deactivated"})).json["status"] == "deactivated"
    stored = [each for (plural, _, _), each in server.world.api.store.by_key.items() if plural == "acmeorders"]
    assert json.dumps(stored) == before
