"""Every error type that the server sends, provoked on the whole server, in the words that somebody has to act on.

The details stand here in full on purpose: they are read by people in the output of their clients.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.api.problems import STATUSES
from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.client import Resolver
from acme_server.validation.http01 import HTTP01
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.connector import Connector
from acme_server.validation.net.http_client import HTTPClient
from acme_server.validation.net.redirects import PORTS
from acme_server.validation.tlsalpn01 import TLSALPN01
from e2e.load.keys import certificate_id
from kms.resources.meta import LocalRef
from kms.resources.policies import PolicySpec, ValueRules
from kms.resources.profiles import OrderProfile
from tests.support import pki
from tests.support.acme import ClientKey, b64, binding, signed
from tests.support.domain import KEY_ID_1, Validator, World
from tests.support.nameserver import running_nameserver
from tests.support.server import Answer, Server, running_server
from tests.support.webserver import Behaviour, answering, redirecting, running_webserver

Provoke = Callable[[Server], Awaitable[Answer]]


def configured(**acme: Any) -> Callable[[World], None]:
    return lambda world: world.configure(**acme)


async def no_such_kid(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-order", {}, kid=f"{server.base}/accounts/{'a' * 52}")


async def only_return_existing(server: Server) -> Answer:
    return await server.register(ClientKey(), onlyReturnExisting=True)


async def other_names_in_the_csr(server: Server) -> Answer:
    return await server.finalize(await server.ready("www.example.com"), pki.csr("www.example.com", "api.example.com"))


async def a_csr_that_is_none(server: Server) -> Answer:
    return await server.finalize(await server.ready(), b"0\x00")


async def the_account_key_in_the_csr(server: Server) -> Answer:
    return await server.finalize(await server.ready(), pki.csr("www.example.com", signed_with=server.key.private))


async def a_used_nonce(server: Server) -> Answer:
    nonce = server.nonces.issue()
    assert (await server.post(f"{server.base}/directory", nonce=nonce)).status == 200
    return await server.post(f"{server.base}/directory", nonce=nonce)


async def no_nonce(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-order", {}, nonce=None)


async def a_short_account_key(server: Server) -> Answer:
    jwk = {"kty": "RSA", "e": "AQAB", "n": b64(b"\xff" * 128)}
    return await server.post(f"{server.base}/new-account", {}, jwk=jwk, alg="RS256")


async def an_unknown_algorithm(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-account", {}, jwk=server.key.jwk, alg="HS256")


async def no_binding(server: Server) -> Answer:
    server.world.configure(external_account_binding="Required")
    return await server.register(ClientKey())


async def a_binding_with_a_wrong_mac(server: Server) -> Answer:
    server.world.configure(external_account_binding="Required")
    server.world.put_credential()
    key, url = ClientKey(), f"{server.base}/new-account"
    return await server.register(key, externalAccountBinding=binding(key, url=url, mac_key=b"w" * 32, kid=KEY_ID_1))


async def a_contact_that_is_no_address(server: Server) -> Answer:
    return await server.register(ClientKey(), contact=["mailto:a@example.com,b@example.com"])


async def a_contact_of_another_scheme(server: Server) -> Answer:
    return await server.register(ClientKey(), contact=["tel:+4912345"])


async def an_order_for_nothing(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-order", {"identifiers": []})


async def an_address_as_a_dns_name(server: Server) -> Answer:
    return await server.order("127.0.0.1")


async def an_order_that_is_pending(server: Server) -> Answer:
    return await server.finalize(await server.order())


async def a_name_that_is_for_another_ca(server: Server) -> Answer:
    order = await server.ready()
    server.world.records.properties["example.com"] = [Property(0, b"issue", b"other.example.net")]
    server.world.configure(caa="Enforce", caa_identities=("ca.example.com",))
    return await server.finalize(order)


async def too_many_open_orders(server: Server) -> Answer:
    server.world.services.state.open_orders.maximum = 1
    await server.order()
    return await server.order()


async def a_name_outside_of_the_policy(server: Server) -> Answer:
    return await server.order("www.example.org")


async def names_outside_of_the_policy(server: Server) -> Answer:
    return await server.order("a.example.org", "www.example.com", "*.example.com")


async def an_issuer_that_is_not_ready(server: Server) -> Answer:
    order = await server.ready()
    server.world.remove_authority_key()
    return await server.finalize(order)


async def the_api_server_is_away(server: Server) -> Answer:
    server.world.api.fail_next("create", "acmeorders", 503)
    return await server.order()


async def a_deactivated_account(server: Server) -> Answer:
    assert server.kid is not None
    assert (await server.post(server.kid, {"status": "deactivated"})).json["status"] == "deactivated"
    return await server.order()


async def another_url(server: Server) -> Answer:
    kid, nonce = server.kid, server.nonces.issue()
    body = signed(server.key, b"{}", kid=kid, nonce=nonce, url=f"{server.base}/new-account")
    return await server.post(f"{server.base}/new-order", body=body)


async def another_type_of_identifier(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-order", {"identifiers": [{"type": "email", "value": "a@example.com"}]})


async def an_unknown_order_profile(server: Server) -> Answer:
    entries = tuple(OrderProfile(name=name, profile_ref=LocalRef(name="web")) for name in ("tls", "short"))
    server.world.configure(profiles=entries)
    return await server.order(profile="long\n")


async def a_loopback_address(server: Server) -> Answer:
    server.world.configure(policy=PolicySpec(ip_addresses=ValueRules(allowed=("0.0.0.0/0",))))
    return await server.post(f"{server.base}/new-order", {"identifiers": [{"type": "ip", "value": "127.0.0.1"}]})


async def an_odd_spelling_of_an_address(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-order", {"identifiers": [{"type": "ip", "value": "2001:DB8::1"}]})


async def a_wildcard_before_any_order(server: Server) -> Answer:
    server.world.configure(pre_authorization="Enabled")
    identifier = {"type": "dns", "value": "*.example.com"}
    return await server.post(f"{server.base}/new-authz", {"identifier": identifier})


async def an_authorization_before_any_order(server: Server) -> Answer:
    return await server.post(f"{server.base}/new-authz", {"identifier": {"type": "dns", "value": "www.example.com"}})


async def an_authorization_that_was_given_up(server: Server) -> Answer:
    first = await server.ready()
    second = await server.order()
    await server.post(first.json["authorizations"][0], {"status": "deactivated"})
    return await server.finalize(second)


async def terms_that_are_not_agreed_to(server: Server) -> Answer:
    server.world.configure(terms_of_service="https://example.com/terms")
    return await server.register(ClientKey())


async def somebody_elses_order(server: Server) -> Answer:
    order = await server.order()
    server.key = ClientKey()
    await server.register()
    return await server.post(order.location)


async def issued(server: Server) -> x509.Certificate:
    """A new certificate of the server's account."""
    return await server.certificate(await server.finalize(await server.ready()))


async def a_certificate_that_is_replaced_already(server: Server) -> Answer:
    replaces = certificate_id(await issued(server))
    assert (await server.order(replaces=replaces)).json["replaces"] == replaces
    return await server.order(replaces=replaces)


async def a_key_that_is_compromised(server: Server) -> Answer:
    csr = pki.csr("www.example.com")
    server.world.compromise(pki.key().public_key())
    return await server.finalize(await server.ready(), csr)


async def revoking(server: Server, certificate: x509.Certificate, reason: int | None = None) -> Answer:
    der = certificate.public_bytes(Encoding.DER)
    return await server.post(f"{server.base}/revoke-cert", {"certificate": b64(der), "reason": reason})


async def a_certificate_that_is_revoked_already(server: Server) -> Answer:
    certificate = await issued(server)
    assert (await revoking(server, certificate)).status == 200
    return await revoking(server, certificate)


async def a_reason_that_is_not_for_subscribers(server: Server) -> Answer:
    return await revoking(server, await issued(server), 6)


async def somebody_elses_certificate(server: Server) -> Answer:
    certificate = await issued(server)
    server.key = ClientKey()
    await server.register()
    return await revoking(server, certificate)


async def a_certificate_of_nobody(server: Server) -> Answer:
    server.world.services.state.order_index.mark_complete()
    der = pki.root().certificate.public_bytes(Encoding.DER)
    return await server.post(f"{server.base}/revoke-cert", {"certificate": b64(der)})


async def a_certificate_that_is_none(server: Server) -> Answer:
    return await server.post(f"{server.base}/revoke-cert", {"certificate": "AAAA"})


EXPECTED: list[tuple[Provoke, str, int, str]] = [
    (no_such_kid, "accountDoesNotExist", 400, "There is no such account in this profile."),
    (only_return_existing, "accountDoesNotExist", 400, "There is no such account in this profile."),
    (
        other_names_in_the_csr,
        "badCSR",
        400,
        "The names of the certificate request are not those of the order: it names api.example.com, not in the order.",
    ),
    (
        a_certificate_that_is_replaced_already,
        "alreadyReplaced",
        409,
        "replaces: another order already replaces the certificate.",
    ),
    (
        a_key_that_is_compromised,
        "badCSR",
        400,
        (
            "The key of the certificate request is compromised: a certificate with it was revoked for that reason. "
            "Make a new key."
        ),
    ),
    (a_certificate_that_is_revoked_already, "alreadyRevoked", 400, "The certificate is revoked already."),
    (
        a_reason_that_is_not_for_subscribers,
        "badRevocationReason",
        400,
        (
            "The reason 6 is not allowed; allowed are 0 (unspecified), 1 (keyCompromise), 3 (affiliationChanged), "
            "4 (superseded), 5 (cessationOfOperation)."
        ),
    ),
    (
        somebody_elses_certificate,
        "unauthorized",
        403,
        "The certificate was issued to another account, and this one has no valid authorization for all names.",
    ),
    (a_certificate_of_nobody, "malformed", 404, "There is no such certificate in this profile."),
    (
        a_certificate_that_is_none,
        "malformed",
        400,
        "The certificate must be exactly one X.509 certificate in DER, in base64url; PEM is not accepted.",
    ),
    (
        a_csr_that_is_none,
        "badCSR",
        400,
        "The certificate request is not well-formed DER of PKCS #10: the part that is signed is missing.",
    ),
    (the_account_key_in_the_csr, "badCSR", 400, "The key of the certificate request is the key of an ACME account."),
    (a_used_nonce, "badNonce", 400, "The nonce is unknown, expired or used; try again with the one given here."),
    (no_nonce, "badNonce", 400, "The protected header has no nonce."),
    (a_short_account_key, "badPublicKey", 400, "The RSA key has 1024 bits; 2048 to 4096 are accepted."),
    (
        an_unknown_algorithm,
        "badSignatureAlgorithm",
        400,
        "The signature algorithm is not supported. Use one of ES256, ES384, ES512, EdDSA, RS256, RS384, RS512, PS256.",
    ),
    (
        no_binding,
        "externalAccountRequired",
        403,
        "Profile pki/web asks for an external account binding: the key identifier and secret of an EABCredential.",
    ),
    (
        a_binding_with_a_wrong_mac,
        "unauthorized",
        403,
        "The external account binding is not valid: its key identifier is unknown here or its MAC is wrong.",
    ),
    (
        a_contact_that_is_no_address,
        "invalidContact",
        400,
        "A contact is not a single mail address; header fields and lists of addresses are not accepted.",
    ),
    (
        a_contact_of_another_scheme,
        "unsupportedContact",
        400,
        "Contacts with the scheme tel: are not supported; use mailto:.",
    ),
    (
        an_order_for_nothing,
        "malformed",
        400,
        "The payload is not what this resource takes: Expected `array` of length >= 1 - at `$.identifiers`.",
    ),
    (
        an_address_as_a_dns_name,
        "malformed",
        400,
        '"127.0.0.1" is not a DNS name: it ends in a number, as an IP address does.',
    ),
    (somebody_elses_order, "malformed", 404, "There is no such resource for this account."),
    (
        an_order_that_is_pending,
        "orderNotReady",
        403,
        "The order is pending: only an order that is ready can be finalized.",
    ),
    (
        a_name_that_is_for_another_ca,
        "caa",
        403,
        (
            "The CAA records at example.com forbid a certificate for www.example.com: "
            'no property "issue" that is well-formed names ca.example.com.'
        ),
    ),
    (
        too_many_open_orders,
        "rateLimited",
        503,
        "The account has 1 orders that are open or failed within a day; finish some of them.",
    ),
    (
        a_name_outside_of_the_policy,
        "rejectedIdentifier",
        403,
        'DNS name "www.example.org" is not allowed by policy pki/policy (spec.dnsNames.allowed)',
    ),
    (
        names_outside_of_the_policy,
        "rejectedIdentifier",
        403,
        (
            'The identifiers are refused: DNS name "a.example.org" is not allowed by policy pki/policy '
            '(spec.dnsNames.allowed); wildcard DNS name "*.example.com" is not allowed by policy pki/policy '
            '(spec.dnsNames.wildcards); control of wildcard DNS name "*.example.com" cannot be proven with the '
            "challenges that profile pki/web offers (http-01)."
        ),
    ),
    (an_issuer_that_is_not_ready, "serverInternal", 503, "The issuing CA is not ready."),
    (the_api_server_is_away, "serverInternal", 503, "The Kubernetes API does not answer."),
    (a_deactivated_account, "unauthorized", 401, "The account is deactivated."),
    (another_url, "unauthorized", 403, "The url in the protected header is not the URL of this resource."),
    (
        another_type_of_identifier,
        "unsupportedIdentifier",
        400,
        "Identifiers of type 'email' are not supported here; use type dns or ip.",
    ),
    (
        an_unknown_order_profile,
        "invalidProfile",
        400,
        'The directory offers no profile "long\\n"; it offers short, tls.',
    ),
    (
        a_loopback_address,
        "rejectedIdentifier",
        403,
        'IP address "127.0.0.1" is not certified by this server: it is loopback',
    ),
    (
        an_odd_spelling_of_an_address,
        "malformed",
        400,
        '"2001:DB8::1" is not the canonical spelling of this IP address; write "2001:db8::1".',
    ),
    (
        a_wildcard_before_any_order,
        "malformed",
        400,
        "An authorization before any order cannot be for a wildcard.",
    ),
    (
        an_authorization_before_any_order,
        "malformed",
        404,
        "Profile pki/web opens no authorizations before orders (newAuthz).",
    ),
    (
        an_authorization_that_was_given_up,
        "orderNotReady",
        403,
        "The order is invalid: www.example.com: The authorization was deactivated.",
    ),
    (
        terms_that_are_not_agreed_to,
        "userActionRequired",
        403,
        "The terms of service must be agreed to: https://example.com/terms",
    ),
]


@pytest.mark.requirement(
    "S43", "M44", "M51", "SEC20", "C6", "C11", "M40", "SEC38", "SEC62", "M69", "M134", "M22", "ARI-M8", "PROF-M2"
)
@pytest.mark.parametrize(
    ("provoke", "type_", "status", "detail"), [pytest.param(*each, id=each[0].__name__) for each in EXPECTED]
)
async def test_a_refusal_says_what_is_wrong_in_words_that_help(
    provoke: Provoke, type_: str, status: int, detail: str
) -> None:
    async with running_server() as server:
        await server.register()
        refused = await provoke(server)
        problem = refused.problem
        assert (problem["type"], refused.status, problem["detail"]) == (type_, status, detail)
        assert None not in problem.values()  # C11
        assert refused.headers["Replay-Nonce"]  # SEC20
        assert any(each.endswith('rel="index"') for each in refused.urls)  # M51
        if status == 503:
            assert re.fullmatch("[1-9][0-9]*", refused.headers["Retry-After"])  # C6


async def hangs_up(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


BEHIND_TLS = redirecting("https://www.example.com:TLS/")
"""Redirects to a port that does not speak TLS."""

FAILURES: list[tuple[str, str, Behaviour | None]] = [
    (
        "unauthorized",
        (
            "URL answered with something other than the key authorization of this challenge: "
            "token, dot, thumbprint of the account's key."
        ),
        answering(b"hello"),
    ),
    (
        "unauthorized",
        "URL answered with status 403 instead of 200.",
        answering(b"", "403 Forbidden"),
    ),
    (
        "incorrectResponse",
        "URL cannot be used: it redirects to a port other than 80, 443, PORT, which is not followed.",
        redirecting("http://www.example.com:22/"),
    ),
    (
        "connection",
        "URL closed the connection before it had answered. (3 attempts)",
        hangs_up,
    ),
    (
        "dns",
        "The DNS lookup (A, AAAA) of www.example.com failed: the name does not exist (NXDOMAIN). (3 attempts)",
        None,
    ),
    (
        "unauthorized",
        "FIRST redirects to a place where the key authorization of this challenge was not found. (3 attempts)",
        BEHIND_TLS,
    ),
    (
        "tls",
        "The TLS handshake with PEER failed: the server did not answer with TLS. (3 attempts)",
        hangs_up,
    ),
]


@pytest.fixture
async def secure_port() -> AsyncIterator[int]:
    """A server that answers a handshake with something else."""

    async def no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(no_tls, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.requirement("M133", "M143", "SEC46")
@pytest.mark.parametrize(
    ("type_", "detail", "behaviour"), FAILURES, ids=[f"{each[0]}-{number}" for number, each in enumerate(FAILURES)]
)
async def test_a_challenge_that_fails_says_why_in_challenge_and_order(
    type_: str, detail: str, behaviour: Behaviour | None, secure_port: int
) -> None:
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(running_nameserver())
        if behaviour is not None:
            names.records["www.example.com", "A"] = ["127.0.0.1"]
        if behaviour is BEHIND_TLS:
            behaviour = redirecting(f"https://www.example.com:{secure_port}/")
        web = await stack.enter_async_context(running_webserver(behaviour or hangs_up))
        settings = ValidationSettings(http01_port=web.port, allow=(ip_network("127.0.0.0/8"),))
        client = HTTPClient(
            resolver=Resolver((names.address,), timeout=5),
            addresses=AddressFilter(settings),
            ports=PORTS | {web.port, secure_port},
            deadline=20,
        )

        connector = Connector(resolver=Resolver((names.address,), timeout=5), addresses=AddressFilter(settings))
        validator = TLSALPN01(connector, port=secure_port) if type_ == "tls" else HTTP01(client, port=web.port)

        def configure(world: World) -> None:
            world.validator = cast("Validator", validator)

        server = await stack.enter_async_context(running_server(configure))
        await server.register()
        order = await server.order()
        (url,) = order.json["authorizations"]
        (challenge,) = (await server.post(url)).json["challenges"]
        assert (await server.post(challenge["url"], {})).json["status"] == "processing"
        invalid = await until_settled(server, url)
        (failed,) = invalid.json["challenges"]
        fetched = f"http://www.example.com:{web.port}/.well-known/acme-challenge/{challenge['token']} (127.0.0.1)"
        expected = detail.replace("URL", fetched).replace("FIRST", fetched.partition(" ")[0])
        expected = expected.replace("PEER", f"www.example.com (127.0.0.1) port {secure_port}")
        expected = expected.replace("PORT", ", ".join(map(str, sorted((web.port, secure_port)))))
        assert invalid.json["status"] == failed["status"] == "invalid"
        assert failed["error"]["type"] == f"urn:ietf:params:acme:error:{type_}"
        assert failed["error"]["detail"] == expected
        assert failed["error"]["status"] == STATUSES.get(ProblemType(type_), 400)
        shown = await server.post(order.location)
        assert shown.json["status"] == "invalid"
        assert shown.json["error"]["detail"] == f"www.example.com: {expected}"
        again = await server.post(challenge["url"], {})
        assert (again.status, again.json["status"]) == (200, "invalid")  # M133


async def until_settled(server: Server, url: str) -> Answer:
    for _ in range(200):  # each waits on the server for a moment
        shown = await server.post(url)
        if shown.json["status"] != "pending":
            return shown
    raise AssertionError(shown.text)


@pytest.mark.requirement("M44")
def test_every_error_type_of_the_server_is_provoked_here() -> None:
    provoked = {each[1] for each in EXPECTED} | {each[0] for each in FAILURES}
    assert provoked == {each.value for each in ProblemType}
