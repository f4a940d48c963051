"""Client-side keys and signatures: account keys (ES256), external account bindings (HS256), CSRs."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ES256 = ec.ECDSA(hashes.SHA256())
COORDINATE = 32
"""Octets of one coordinate of P-256, and of one half of an ES256 signature (RFC 7518, 3.4)."""


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 8555, 6.1)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text: str) -> bytes:
    """Decode base64url without padding.

    Raises:
        ValueError: if the text is not base64url.
    """
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def encode_payload(payload: Mapping[str, Any] | bytes | None) -> bytes:
    """Encode a payload for signing: an object as JSON, bytes unchanged, None (POST-as-GET) as empty (RFC 8555, 6.3)."""
    if payload is None:
        return b""
    return payload if isinstance(payload, bytes) else msgspec.json.encode(payload)


def flattened(protected: str, payload: str, signature: bytes) -> bytes:
    """A JWS in flattened JSON serialization (RFC 7515, 7.2.2)."""
    return msgspec.json.encode({"protected": protected, "payload": payload, "signature": b64url(signature)})


@dataclass(frozen=True)
class AccountKey:
    """An account key on P-256."""

    private: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> AccountKey:
        """A new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @cached_property
    def jwk(self) -> dict[str, str]:
        """The public key as a JWK, with its members in the order of RFC 7638."""
        numbers = self.private.public_key().public_numbers()
        return {
            "crv": "P-256",
            "kty": "EC",
            "x": b64url(numbers.x.to_bytes(COORDINATE, "big")),
            "y": b64url(numbers.y.to_bytes(COORDINATE, "big")),
        }

    @cached_property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint, base64url."""
        return b64url(hashlib.sha256(msgspec.json.encode(self.jwk)).digest())

    def sign(self, data: bytes) -> bytes:
        """An ES256 signature: R and S, 32 octets each (RFC 7518, 3.4)."""
        r, s = decode_dss_signature(self.private.sign(data, ES256))
        return r.to_bytes(COORDINATE, "big") + s.to_bytes(COORDINATE, "big")

    def jws(self, protected: Mapping[str, Any], payload: Mapping[str, Any] | bytes | None) -> bytes:
        """The signed request body. `protected` is used unchanged, so tests may omit or add members."""
        header, body = b64url(msgspec.json.encode(protected)), b64url(encode_payload(payload))
        return flattened(header, body, self.sign(f"{header}.{body}".encode()))


@dataclass(frozen=True)
class ExternalAccount:
    """An EAB credential: key identifier and HMAC key (RFC 8555, 7.3.4)."""

    key_id: str
    mac_key: bytes

    @classmethod
    def parse(cls, key_id: str, secret: str) -> ExternalAccount:
        """Parse the two strings of a credential; `secret` is base64url.

        Raises:
            ValueError: if the secret is not base64url.
        """
        return cls(key_id, b64url_decode(secret.strip()))

    def binding(self, key: AccountKey, url: str, *, algorithm: str = "HS256") -> dict[str, str]:
        """The member `externalAccountBinding` for a newAccount request to `url`."""
        protected = b64url(msgspec.json.encode({"alg": algorithm, "kid": self.key_id, "url": url}))
        payload = b64url(msgspec.json.encode(key.jwk))
        mac = hmac.digest(self.mac_key, f"{protected}.{payload}".encode(), algorithm.replace("HS", "sha"))
        return {"protected": protected, "payload": payload, "signature": b64url(mac)}


def certificate_id(certificate: x509.Certificate) -> str:
    """The certificate identifier for renewal information (RFC 9773, 4.1)."""
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = certificate.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # as in DER, with the sign bit
    return f"{b64url(authority or b'')}.{b64url(octets)}"


def certificate_key() -> ec.EllipticCurvePrivateKey:
    """A new key for a certificate: P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate_request(names: Sequence[str], key: ec.EllipticCurvePrivateKey, *, common_name: bool = False) -> bytes:
    """A CSR in DER for these DNS names; with `common_name`, the first name is the common name, too."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if common_name else []
    return (
        x509.CertificateSigningRequestBuilder(x509.Name(subject))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
