"""Real inputs of each target, generated for each run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType

import dns.message
import dns.rrset
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from josepy.json_util import encode_b64jose

from fuzz.targets import alpn, crosses, imports, key_changes, nonces, returned, urls
from fuzz.targets import dns as dns_target
from fuzz.targets import eab as eab_target
from kms.pki.ca import intermediate
from kms.pki.certificate import sign_leaf
from kms.pki.keys import generate_key, private_key_pem
from tests.support import csrs, pki
from tests.support.acme import ALGORITHMS, ClientKey, binding, signed
from tests.support.alpn import certificate

_URL = "https://acme.example.com/acme/pki/web/new-account"


@cache
def of(name: str) -> tuple[bytes, ...]:
    """The seeds of a target."""
    return tuple(_SEEDS[name]())


def _jws() -> Iterable[bytes]:
    for algorithm in ALGORITHMS:
        key = ClientKey(algorithm)
        yield signed(key, b"{}", jwk=key.jwk, nonce="bm9uY2U", url=_URL)
    yield signed(key, b"", kid=f"{urls.URL}/acme/pki/web/accounts/{'a' * 52}", nonce="bm9uY2U", url=_URL)


def _jwk() -> Iterable[bytes]:
    return (
        json.dumps(ClientKey(algorithm).jwk).encode() for algorithm in ("ES256", "ES384", "ES512", "EdDSA", "RS256")
    )


def _eab() -> Iterable[bytes]:
    bound = ClientKey()
    bound.jwk = dict(eab_target.JWK)
    for algorithm in ("HS256", "HS384", "HS512"):
        yield json.dumps(binding(bound, url=eab_target.URL, mac_key=eab_target.MAC_KEY, alg=algorithm)).encode()


def _csr() -> Iterable[bytes]:
    yield pki.csr("www.example.com", "10.1.2.3", "2001:db8::1", common_name="www.example.com")
    yield pki.csr("*.example.com", signed_with=generate_key("RSA", 2048))
    yield pki.csr("xn--mnchen-3ya.example.com", signed_with=generate_key("Ed25519", None))
    yield pki.csr(common_name="Jane Doe", signed_with=generate_key("ECDSA", 521))
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False),
        (x509.TLSFeature([x509.TLSFeatureType.status_request]), False),
    ]
    yield pki.csr("www.example.com", extensions=extensions)
    yield from (csrs.certbot(), csrs.acme_sh((csrs.IP, b"\x0a\x01\x02\x03")), csrs.crypt_le(), csrs.openssl())


def _crosses() -> Iterable[bytes]:
    root = pki.root()
    certificate = intermediate(crosses.TEMPLATE, crosses.SIGNER.key, root)
    for chain in ((certificate,), (certificate, root.certificate)):
        yield b"".join(each.public_bytes(Encoding.PEM) for each in chain)


def _names() -> Iterable[bytes]:
    texts = [
        "www.example.com",
        "*.example.com",
        "xn--mnchen-3ya.example.com",
        "10.0.0.1",
        "2001:db8::1",
        "::ffff:1.2.3.4",
    ]
    return (text.encode() for text in texts)


def _identifiers() -> Iterable[bytes]:
    dns_name = {"type": "dns", "value": "www.example.com"}
    for members in (
        {"identifiers": [dns_name], "notAfter": "2026-12-24T12:00:00Z", "profile": ""},
        {
            "identifiers": [
                {"type": "ip", "value": "2001:db8::1"},
                {"type": "email", "value": "a@example.com"},
                dns_name,
            ]
        },
    ):
        yield json.dumps(members).encode()


def _payloads() -> Iterable[bytes]:
    for members in (
        {"termsOfServiceAgreed": True, "contact": ["mailto:a@example.com"], "onlyReturnExisting": False},
        {"status": "deactivated", "contact": []},
        {"csr": encode_b64jose(pki.csr("www.example.com"))},
        {},
    ):
        yield json.dumps(members).encode()
    yield from _identifiers()


def _name_templates() -> Iterable[bytes]:
    return (
        b"*.{namespace}.svc.cluster.local\n\nteam-a",
        b"**.x-{labels.team}.apps.example.com\nshop\nteam-a",
        b"10.{labels.team}.0.0/16\n7\nteam-a",
    )


def _patterns() -> Iterable[bytes]:
    return (b"**.apps.example.com\nweb.apps.example.com", b"*-*-*.example.com\na-b-c.example.com", b"**.**.a\nb.c.a")


def _dns() -> Iterable[bytes]:
    name = f"{dns_target.NAME}."
    records = {
        "A": ("192.0.2.1",),
        "AAAA": ("2001:db8::1",),
        "TXT": ('"one" "two"', '"three"'),
        "CAA": ('0 issue "ca.example.com; validationmethods=dns-01"', '128 issuewild ";"'),
    }
    for type_, built in dns_target.QUERIES.items():
        query = dns.message.from_wire(built.wire)
        yield dns.message.make_response(query).to_wire()
        direct = dns.message.make_response(query)
        direct.answer.append(dns.rrset.from_text(name, 60, "IN", type_, *records[type_]))
        yield direct.to_wire()
        aliased = dns.message.make_response(query)
        aliased.answer.append(dns.rrset.from_text("com.", 60, "IN", "DNAME", "example.net."))
        aliased.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "www.example.example.net."))
        aliased.answer.append(dns.rrset.from_text("www.example.example.net.", 60, "IN", type_, *records[type_]))
        yield aliased.to_wire()


def _http() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\ntoken.digest"
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntoken\r\n7;x=y\r\n.digest\r\n0\r\n\r\n"
    yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\nLocation: https://b.example.com/x?y\r\n\r\n"
    yield b"HTTP/1.0 200 OK\n\ntoken.digest"


def _redirects() -> Iterable[bytes]:
    return (
        b"https://b.example.com:443/x?y=z#f",
        b"//b.example.com/x",
        b"/x",
        b"?y",
        b"http://[::1]/",
        b"HTTP://a@b:80",
    )


def _urls() -> Iterable[bytes]:
    yield f"{urls.URL}/acme/pki/web/accounts/{'a' * 52}".encode()
    yield b"/acme/pki/web/orders/" + b"a" * 32 + b"/finalize"


def _nonces() -> Iterable[bytes]:
    return (nonces.NONCES.issue().encode() for _ in range(3))


def _imports() -> Iterable[bytes]:
    root = pki.root()
    for signer in (root, pki.below(root)):
        chain = b"".join(each.public_bytes(Encoding.PEM) for each in (signer.certificate, *signer.issuers))
        yield chain + imports.BETWEEN + private_key_pem(signer.key)


def _renewals() -> Iterable[bytes]:
    return (b"aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", b"aYhba4dGQEHhs3uEe6CuLN4ByNQ.fw")


def _alpn() -> Iterable[bytes]:
    feature = x509.UnrecognizedExtension(ExtensionOID.TLS_FEATURE, b"\x30\x03\x02\x01\x04")
    for more in ((), (feature,)):
        yield certificate([x509.DNSName(alpn.NAME)], alpn.VALUE, more=more).public_bytes(Encoding.DER)


def _key_changes() -> Iterable[bytes]:
    payload = json.dumps({"account": key_changes.ACCOUNT, "oldKey": ClientKey().jwk}).encode()
    for algorithm in ("ES256", "EdDSA", "RS256"):
        key = ClientKey(algorithm)
        yield signed(key, payload, jwk=key.jwk, url=key_changes.URL)


def _revocations() -> Iterable[bytes]:
    leaf = sign_leaf(pki.leaf(), pki.root()).public_bytes(Encoding.DER)
    for reason in ({}, {"reason": 1}):
        yield json.dumps({"certificate": encode_b64jose(leaf)} | reason).encode()


def _objects() -> Iterable[bytes]:
    solver = {"http01": {"ingress": {"ingressClassName": "nginx"}}, "selector": {"dnsNames": ["a.example.com"]}}
    metadata = {"name": "web", "namespace": "pki", "uid": "1", "resourceVersion": "7", "labels": {"a": "b"}}
    acme = {"certManager": {"clusterIssuer": {"name": "web"}, "solvers": [solver]}}
    spec = {"issuerRef": {"name": "ca"}, "policyRef": {"name": "web"}, "renewIssuedBefore": "2027-01-01T00:00:00Z"}
    profile = {"metadata": metadata, "spec": {**spec, "enrollment": {"acme": acme}}}
    for type_ in ("ADDED", "DELETED", "BOOKMARK"):
        yield json.dumps({"type": type_, "object": profile}).encode()
    yield json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}).encode()
    yield json.dumps({"metadata": {"resourceVersion": "8", "continue": "x"}, "items": [profile, profile]}).encode()
    yield json.dumps({"type": "ADDED", "object": profile}).encode().replace(b'"nginx"', b"[" * 1500 + b"]" * 1500)


def _returned() -> Iterable[bytes]:
    leaf = sign_leaf(returned.LEAF, returned.ISSUING)
    chain = (leaf, returned.ISSUING.certificate, returned.ROOT.certificate)
    yield b"".join(each.public_bytes(Encoding.PEM) for each in chain)
    yield returned.BETWEEN.join(each.public_bytes(Encoding.DER) for each in chain[:2])
    yield sign_leaf(returned.LEAF, returned.ROOT).public_bytes(Encoding.DER)


def _verbatim() -> Iterable[bytes]:
    yield from _csr()
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    signing = x509.KeyUsage(*(position == 0 for position in range(9)))
    yield pki.csr("www.example.com", common_name="www.example.com", extensions=[(server, False), (signing, True)])
    no_authority = x509.BasicConstraints(ca=False, path_length=None)
    yield pki.csr("www.example.com", extensions=[(no_authority, True)], signed_with=generate_key("RSA", 2048))


_SEEDS: Mapping[str, Callable[[], Iterable[bytes]]] = MappingProxyType(
    {
        "alpn": _alpn,
        "crosses": _crosses,
        "csr": _csr,
        "dns": _dns,
        "eab": _eab,
        "http": _http,
        "identifiers": _identifiers,
        "imports": _imports,
        "jwk": _jwk,
        "jws": _jws,
        "key_changes": _key_changes,
        "name_templates": _name_templates,
        "names": _names,
        "nonces": _nonces,
        "objects": _objects,
        "patterns": _patterns,
        "payloads": _payloads,
        "redirects": _redirects,
        "renewals": _renewals,
        "returned": _returned,
        "revocations": _revocations,
        "urls": _urls,
        "verbatim": _verbatim,
    }
)
