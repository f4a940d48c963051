"""Signed requests: flattened JSON Web Signatures (RFC 7515, 7.2.2) as RFC 8555, 6.2 narrows them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature

from acme_server.jose.decoding import base64url, json_object, malformed
from acme_server.jose.jwk import AccountKey
from acme_server.jose.signatures import ALGORITHMS
from acme_server.problems import ProblemType, Refused


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
    algorithm, nonce = algorithm_of(header, ALGORITHMS), header.get("nonce")
    if nonce is None:
        raise Refused(ProblemType.BAD_NONCE, "The protected header has no nonce.")
    if not isinstance(nonce, str):
        raise malformed("The nonce must be a string.")
    return SignedRequest(
        algorithm=algorithm,
        nonce=nonce,
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


def algorithm_of(header: Mapping[str, Any], accepted: Collection[str]) -> str:
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
    verify_ = key.verifiers.get(algorithm)
    if verify_ is None:
        raise _bad_algorithm("The signature algorithm does not fit the key.", key.algorithms)
    try:
        verify_(signature, signed)
    except InvalidSignature:
        raise malformed(f"The signature of {what} is not valid.") from None


def _bad_algorithm(detail: str, accepted: Collection[str]) -> Refused:
    return Refused(
        ProblemType.BAD_SIGNATURE_ALGORITHM,
        f"{detail} Use one of {', '.join(accepted)}.",
        members={"algorithms": list(accepted)},
    )
