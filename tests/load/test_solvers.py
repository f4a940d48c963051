from __future__ import annotations

import hashlib
import socket
import ssl
import urllib.request
from collections.abc import Callable

import dns.message
import dns.query
import pytest
from cryptography import x509

from e2e.load.keys import b64url
from e2e.load.solvers import CHALLENGES, ByDNS, ByHTTP, ByTLS
from e2e.support import dns as zones
from e2e.support import http01, tlsalpn01

NAME, TOKEN, THUMBPRINT = "a.demo.test", "token", "thumbprint"
DIGEST = hashlib.sha256(b"token.thumbprint").digest()


def by_http() -> None:
    answerer = http01.Answerer()
    ByHTTP(answerer.add).publish(NAME, TOKEN, THUMBPRINT)
    with (
        http01.serving(answerer) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}{http01.PREFIX}{TOKEN}", timeout=5) as answer,
    ):
        assert answer.read() == b"token.thumbprint"


def by_dns() -> None:
    zone = zones.Zone("demo.test")
    ByDNS(zone).publish(NAME, "an earlier one", THUMBPRINT)
    ByDNS(zone).publish(NAME, TOKEN, THUMBPRINT)
    with zones.serving(zone) as address:
        query = dns.message.make_query(f"_acme-challenge.{NAME}", "TXT")
        (records,) = dns.query.udp(query, "127.0.0.1", port=int(address.rpartition(":")[2]), timeout=5).answer
    assert [each.to_text() for each in records] == [f'"{b64url(DIGEST)}"']


def by_tls() -> None:
    answerer = tlsalpn01.Answerer()
    ByTLS(answerer).publish(NAME, TOKEN, THUMBPRINT)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([tlsalpn01.PROTOCOL])
    with (
        tlsalpn01.serving(answerer) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname=NAME) as secured,
    ):
        certificate = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    proof = certificate.extensions.get_extension_for_oid(tlsalpn01.ACME_IDENTIFIER).value
    assert isinstance(proof, x509.UnrecognizedExtension)
    assert proof.value.endswith(DIGEST)


@pytest.mark.parametrize("solve", [by_http, by_dns, by_tls])
def test_the_proof_is_shown_where_the_challenge_wants_it(solve: Callable[[], None]) -> None:
    solve()


def test_there_is_a_way_for_every_challenge() -> None:
    assert (ByHTTP.type, ByDNS.type, ByTLS.type) == CHALLENGES
