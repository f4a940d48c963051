"""The body of a POST: a flattened JWS, with the key in its header verified (RFC 8555, 6.2)."""

from __future__ import annotations

from acme_server.jose import jws
from acme_server.jose.jwk import account_key
from acme_server.problems import Refused
from fuzz.target import Target


def read(data: bytes) -> None:
    """Parse and verify the JWS as `Authenticator.key_holder` does."""
    request = jws.parse(data)
    if request.jwk is not None:
        jws.verify(request, account_key(request.jwk))


TARGET = Target(read, (Refused,))
