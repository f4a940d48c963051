"""The keys and signatures of a client, valid or invalid."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from acme_server.jose.jwk import AccountKey, account_key
from acme_server.model import Profile
from kms.resources import CertificateProfile
from kms.resources.authorities import AuthoritySpec, CertificateAuthority
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.profiles import AcmeEnrollment, Enrollment, ProfileSpec

EXTERNAL_URL = "https://acme.example.com"
DIRECTORY = "/acme/pki/web"
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
MAC_KEY = bytes(range(32))
KEY_ID = "web-1"


def b64(value: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


def _minimal(value: int) -> str:
    return _number(value, (value.bit_length() + 7) // 8)


_EC = {"ES256": (ec.SECP256R1(), SHA256(), 32, "P-256"), "ES384": (ec.SECP384R1(), SHA384(), 48, "P-384")}
_EC["ES512"] = (ec.SECP521R1(), SHA512(), 66, "P-521")
_RSA: Mapping[str, HashAlgorithm] = {"RS256": SHA256(), "RS384": SHA384(), "RS512": SHA512(), "PS256": SHA256()}

ALGORITHMS = (*_EC, *_RSA, "EdDSA")


class ClientKey:
    """A key pair of a client; `algorithm` is its default signature algorithm."""

    def __init__(self, algorithm: str = "ES256", private: Any = None) -> None:
        self.algorithm = algorithm
        self.private = private or _generated(algorithm)
        self.jwk = _jwk(self.private, algorithm)
        self.public: AccountKey = account_key(self.jwk)

    def sign(self, message: bytes) -> bytes:
        """Sign a message in the format of JWS."""
        if self.algorithm in _EC:
            _, hash_, size, _ = _EC[self.algorithm]
            r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hash_)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if self.algorithm == "EdDSA":
            return cast("bytes", self.private.sign(message))
        hash_ = _RSA[self.algorithm]
        pad = padding.PSS(padding.MGF1(hash_), 32) if self.algorithm == "PS256" else padding.PKCS1v15()
        return cast("bytes", self.private.sign(message, pad, hash_))


def _generated(algorithm: str) -> Any:
    if algorithm in _EC:
        return ec.generate_private_key(_EC[algorithm][0])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def _jwk(private: Any, algorithm: str) -> dict[str, Any]:
    public = private.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        numbers = public.public_numbers()
        _, _, size, curve = _EC[algorithm]
        return {"kty": "EC", "crv": curve, "x": _number(numbers.x, size), "y": _number(numbers.y, size)}
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
    rsa_numbers = public.public_numbers()
    return {"kty": "RSA", "n": _minimal(rsa_numbers.n), "e": _minimal(rsa_numbers.e)}


def flattened(protected: Any, payload: bytes, sign: Any) -> dict[str, Any]:
    """A flattened JWS with this protected header, an object or bytes."""
    header = b64(protected if isinstance(protected, bytes) else json.dumps(protected).encode())
    body = b64(payload)
    return {"protected": header, "payload": body, "signature": b64(sign(f"{header}.{body}".encode()))}


def signed(key: ClientKey, payload: bytes, **header: Any) -> bytes:
    """A signed request body. Header members that are None are left out."""
    members = {"alg": key.algorithm} | header
    return json.dumps(flattened({k: v for k, v in members.items() if v is not None}, payload, key.sign)).encode()


def binding(
    key: ClientKey, *, url: str, mac_key: bytes = MAC_KEY, payload: bytes | None = None, **header: Any
) -> dict[str, Any]:
    """An externalAccountBinding. Header members that are None are left out."""
    members = {"alg": "HS256", "kid": KEY_ID, "url": url} | header
    digest = {"HS384": "sha384", "HS512": "sha512"}.get(members["alg"], "sha256")
    body = json.dumps(key.jwk).encode() if payload is None else payload
    present = {k: v for k, v in members.items() if v is not None}
    return flattened(present, body, lambda message: hmac.digest(mac_key, message, digest))


def profile(name: str = "web", **acme: Any) -> Profile:
    """A profile `pki/<name>`, ready, without a policy and a CA."""
    enrollment = AcmeEnrollment(**acme)
    spec = ProfileSpec(
        issuer_ref=LocalRef(name="ca"), policy_ref=LocalRef(name="policy"), enrollment=Enrollment(acme=enrollment)
    )
    return Profile(
        resource=CertificateProfile(metadata=ObjectMeta(name=name, namespace="pki", uid=f"uid-{name}"), spec=spec),
        policy=cast("Any", None),
        authority=CertificateAuthority(metadata=ObjectMeta(name="ca", namespace="pki"), spec=AuthoritySpec()),
        acme=enrollment,
        duration=timedelta(days=30),
        order_lifetime=timedelta(days=1),
        authorization_lifetime=timedelta(days=1),
    )
