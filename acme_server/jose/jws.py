"""Signed requests: flattened JSON Web Signatures (RFC 7515, 7.2.2) as RFC 8555, 6.2 narrows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from acme_server.jose.decoding import base64url, json_object, malformed
from acme_server.jose.jwk import AccountKey, Verifier
from acme_server.problems import ProblemType, Refused

_Verify = Callable[[Verifier, bytes, bytes], None]
"""(key, signature, message); raises InvalidSignature, also where the key is of another type."""


class Envelope(msgspec.Struct, frozen=True):
    """A well-formed flattened JWS, not verified yet. `signed` is the signing input."""

    header: Mapping[str, Any]
    payload: bytes
    signature: bytes
    signed: bytes


class SignedRequest(msgspec.Struct, frozen=True):
    """A request of RFC 8555, 6.2, not verified yet. Exactly one of `key_id` (kid) and `jwk` is set."""

    algorithm: str
    nonce: str
    url: str
    key_id: str | None
    jwk: Mapping[str, Any] | None
    payload: bytes
    signature: bytes
    signed: bytes


def parse(body: bytes) -> SignedRequest:
    """The signed request in `body`.

    Raises Refused: malformed if the form is wrong, badSignatureAlgorithm, badNonce if the
    nonce is missing.
    """
    jws = envelope(json_object(body, "The request"), "The request")
    header = jws.header
    key_id, jwk = header.get("kid"), header.get("jwk")
    if ("kid" in header) == ("jwk" in header):
        raise malformed("The protected header must have exactly one of jwk and kid.")
    if not isinstance(key_id, str) and not isinstance(jwk, dict):
        raise malformed("The kid must be a string and the jwk an object.")
    return SignedRequest(
        algorithm=algorithm_of(header, ALGORITHMS),
        nonce=_nonce_of(header),
        url=url_of(header),
        key_id=key_id,
        jwk=jwk,
        payload=jws.payload,
        signature=jws.signature,
        signed=jws.signed,
    )


def envelope(members: Mapping[str, Any], what: str) -> Envelope:
    """The parts of a flattened JWS. Raises Refused (malformed); `what` names the document in it."""
    if "signatures" in members or "header" in members:
        raise malformed(f"{what} must be a flattened JWS with a single signature and no unprotected header.")
    protected, payload = members.get("protected"), members.get("payload")
    if not isinstance(protected, str) or not isinstance(payload, str):
        raise malformed(f"{what} must be a flattened JWS with the members protected, payload and signature.")
    header = json_object(base64url(protected, "The protected header"), "The protected header")
    if "crit" in header or "b64" in header:
        raise malformed("The protected header must not have crit or b64: no extension of JWS is understood here.")
    return Envelope(
        header=header,
        payload=base64url(payload, "The payload"),
        signature=base64url(members.get("signature"), "The signature"),
        signed=f"{protected}.{payload}".encode(),
    )


def algorithm_of(header: Mapping[str, Any], accepted: Mapping[str, Any]) -> str:
    """The alg of a header. Raises Refused: malformed if it is missing, badSignatureAlgorithm if it is unknown."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise malformed("The protected header must have an alg.")
    if algorithm not in accepted:
        raise _bad_algorithm("The signature algorithm is not supported.", accepted)
    return algorithm


def url_of(header: Mapping[str, Any]) -> str:
    """The url of a header. Raises Refused (malformed)."""
    url = header.get("url")
    if not isinstance(url, str):
        raise malformed("The protected header must have the url of the request.")
    return url


def verify(request: SignedRequest, key: AccountKey) -> None:
    """Check that `key` has signed the request.

    Raises Refused: badSignatureAlgorithm if the algorithm is not one of the key's, malformed if the
    signature is wrong.
    """
    verify_signature(key, request.algorithm, request.signature, request.signed, "the request")


def verify_signature(key: AccountKey, algorithm: str, signature: bytes, signed: bytes, what: str) -> None:
    """Check that `key` has signed `signed`; `what` names the document in the refusal, which is that of `verify`."""
    if algorithm not in key.algorithms:
        raise _bad_algorithm("The signature algorithm does not fit the key.", key.algorithms)
    try:
        ALGORITHMS[algorithm](key.public_key, signature, signed)
    except InvalidSignature:
        raise malformed(f"The signature of {what} is not valid.") from None


def _nonce_of(header: Mapping[str, Any]) -> str:
    nonce = header.get("nonce")
    if nonce is None:
        raise Refused(ProblemType.BAD_NONCE, "The protected header has no nonce.")
    if not isinstance(nonce, str):
        raise malformed("The nonce must be a string.")
    return nonce


def _bad_algorithm(detail: str, accepted: Mapping[str, Any] | tuple[str, ...]) -> Refused:
    return Refused(
        ProblemType.BAD_SIGNATURE_ALGORITHM,
        f"{detail} Use one of {', '.join(accepted)}.",
        members={"algorithms": list(accepted)},
    )


def _pkcs1(hash_: HashAlgorithm) -> _Verify:
    padding = PKCS1v15()

    def verify_(key: Verifier, signature: bytes, message: bytes) -> None:
        if not isinstance(key, RSAPublicKey):
            raise InvalidSignature
        key.verify(signature, message, padding, hash_)

    return verify_


def _pss(hash_: HashAlgorithm) -> _Verify:
    padding = PSS(MGF1(hash_), hash_.digest_size)

    def verify_(key: Verifier, signature: bytes, message: bytes) -> None:
        if not isinstance(key, RSAPublicKey):
            raise InvalidSignature
        key.verify(signature, message, padding, hash_)

    return verify_


def _ecdsa(hash_: HashAlgorithm, octets: int) -> _Verify:
    algorithm = ECDSA(hash_)

    def verify_(key: Verifier, signature: bytes, message: bytes) -> None:
        # r and s side by side, each of full length (RFC 7518, 3.4); DER has another length. That both lie in
        # [1, n-1] is part of the verification itself.
        if not isinstance(key, EllipticCurvePublicKey) or len(signature) != 2 * octets:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:octets], "big"), int.from_bytes(signature[octets:], "big")
        key.verify(encode_dss_signature(r, s), message, algorithm)

    return verify_


def _eddsa(key: Verifier, signature: bytes, message: bytes) -> None:
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidSignature
    key.verify(signature, message)


ALGORITHMS: Mapping[str, _Verify] = MappingProxyType(
    {
        "ES256": _ecdsa(SHA256(), 32),
        "ES384": _ecdsa(SHA384(), 48),
        "ES512": _ecdsa(SHA512(), 66),
        "EdDSA": _eddsa,
        "RS256": _pkcs1(SHA256()),
        "RS384": _pkcs1(SHA384()),
        "RS512": _pkcs1(SHA512()),
        "PS256": _pss(SHA256()),
    }
)
"""The signature algorithms of requests: no MAC, no `none`."""
