"""The TLS-ALPN-01 answerer, asked by the ssl module."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509

from e2e.support.tlsalpn01 import ACME_IDENTIFIER, PROTOCOL, Answerer, server_name, serving

Ask = Callable[[str], x509.Certificate]


@pytest.fixture
def answerer() -> Answerer:
    return Answerer()


@pytest.fixture
def ask(answerer: Answerer) -> Iterator[Ask]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([PROTOCOL])

    with serving(answerer) as port:

        def certificate(name: str) -> x509.Certificate:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
                context.wrap_socket(connection, server_hostname=name) as secured,
            ):
                assert secured.selected_alpn_protocol() == PROTOCOL
                return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")

        yield certificate


def proof_in(certificate: x509.Certificate) -> bytes:
    extension = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    return extension.value.value


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("a.demo.test", x509.DNSName("a.demo.test")),
        ("127.0.0.2", x509.IPAddress(ipaddress.ip_address("127.0.0.2"))),
        ("::1", x509.IPAddress(ipaddress.ip_address("::1"))),
    ],
)
def test_an_identifier_is_answered_with_a_certificate_that_holds_its_key_authorization(
    answerer: Answerer, ask: Ask, identifier: str, name: x509.GeneralName
) -> None:
    answerer.add(identifier, "token.thumbprint")
    answerer.add("other.demo.test", "other")
    certificate = ask(server_name(identifier))
    assert proof_in(certificate) == b"\x04\x20" + hashlib.sha256(b"token.thumbprint").digest()
    assert list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [name]
    assert list(answerer.asked) == [server_name(identifier)]


def test_whoever_is_not_known_gets_a_certificate_that_proves_nothing(answerer: Answerer, ask: Ask) -> None:
    answerer.add("a.demo.test", "token.thumbprint")
    known = proof_in(ask("A.demo.test"))
    answerer.remove("a.demo.test")
    answerer.remove("a.demo.test")
    assert proof_in(ask("a.demo.test")) != known


def test_an_address_is_asked_for_by_its_reverse_name() -> None:
    assert server_name("127.0.0.1") == "1.0.0.127.in-addr.arpa"
    assert server_name("::1") == f"1.{'0.' * 31}ip6.arpa"
