"""Nonces that cost nothing until they are used (RFC 8555, 6.5).

A nonce is 33 octets in base64url: the replica that issued it (6), when (4, seconds), its number there (5) and a MAC of
these (18) under a key that all replicas share. So any replica knows a nonce of ours without having kept it, nobody else
can make one, and every nonce has one spelling.

That it is used once only the issuing replica can tell: it keeps a bit for each number, in chunks that come
into being when the first nonce of a chunk is redeemed. A chunk may go as soon as the latest nonce redeemed in it has
expired, for then every nonce whose bit it holds has; later nonces of the same chunk, redeemed after that, begin a new
one. Memory is thus bounded by one bit for each nonce issued in the last hour.

A replica's identity is drawn when it starts: nonces of an earlier life are unknown to everybody.
"""

from __future__ import annotations

import hmac
from hashlib import blake2b
from typing import NamedTuple

from josepy.json_util import encode_b64jose

from acme_server.jose.decoding import base64url
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.clock import Clock, Entropy

LIFETIME = 3600
"""Seconds that a nonce is good for: cert-manager keeps a hundred of them and takes one when it needs it."""

_REPLICA, _TIME, _NUMBER, _MAC = 6, 4, 5, 18
_SIGNED = _REPLICA + _TIME + _NUMBER
_CHUNK = 4096


class Nonce(NamedTuple):
    """A nonce that a replica of ours has issued; whether it is still good, only that replica knows."""

    text: str
    replica: str
    issued: int
    number: int


def bad_nonce() -> Refused:
    """The refusal after which a client tries again with the nonce of the answer."""
    return Refused(ProblemType.BAD_NONCE, "The nonce is unknown, expired or used; try again with the one given here.")


class Nonces:
    """Issues and redeems the nonces of this replica, and knows those of the others."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._life = entropy(_REPLICA)
        self.replica = self._life.hex()
        self._keys: tuple[bytes, ...] = ()
        self._secret = b""
        self._issued = 0
        self._latest = 0
        self._chunks: dict[int, bytearray] = {}
        self._newest: dict[int, int] = {}

    @property
    def ready(self) -> bool:
        """Whether there is a key to issue nonces with."""
        return bool(self._keys)

    def use(self, secret: bytes) -> None:
        """Take the shared secret into use; nonces made with the one before it are still known."""
        if secret and secret != self._secret:
            self._secret = secret
            self._keys = (hmac.digest(secret, b"nonces", "sha256"), *self._keys[:1])

    def derived_key(self, purpose: bytes) -> bytes:
        """A key of its own for another use among the replicas. Raises Unavailable where there is no secret yet."""
        self._require_key()
        return hmac.digest(self._secret, purpose, "sha256")

    def issue(self) -> str:
        """A new nonce. Raises Unavailable where there is no key yet."""
        self._require_key()
        self._issued += 1
        signed = self._life + self._now().to_bytes(_TIME, "big") + self._issued.to_bytes(_NUMBER, "big")
        return encode_b64jose(signed + _mac(self._keys[0], signed))

    def read(self, text: str) -> Nonce:
        """The nonce that a client has sent.

        Raises Refused: malformed where it is not base64url, badNonce where no replica of ours has made it.
        """
        self._require_key()
        value = base64url(text, "The nonce") if len(text) <= 2 * (_SIGNED + _MAC) else b""
        signed, mac = value[:_SIGNED], value[_SIGNED:]
        if not any(hmac.compare_digest(_mac(key, signed), mac) for key in self._keys):
            raise bad_nonce()
        issued, number = signed[_REPLICA : _REPLICA + _TIME], signed[_REPLICA + _TIME :]
        return Nonce(text, signed[:_REPLICA].hex(), int.from_bytes(issued, "big"), int.from_bytes(number, "big"))

    def redeem(self, nonce: Nonce) -> bool:
        """Use up a nonce of this replica: True the first time, as long as it has not expired."""
        now = self._now()
        if nonce.replica != self.replica or nonce.issued + LIFETIME < now:
            return False
        index, position = divmod(nonce.number, _CHUNK)
        chunk = self._chunks.get(index)
        if chunk is None:
            self._drop_expired(now)
            chunk = self._chunks[index] = bytearray(_CHUNK // 8)
        octet, bit = position // 8, 1 << position % 8
        if chunk[octet] & bit:
            return False
        chunk[octet] |= bit
        self._newest[index] = max(self._newest.get(index, 0), nonce.issued)
        return True

    def _drop_expired(self, now: int) -> None:
        for index in [index for index, newest in self._newest.items() if newest + LIFETIME < now]:
            del self._chunks[index], self._newest[index]

    def _now(self) -> int:
        """Seconds that never go back: a clock that is set back must not revive what was dropped."""
        self._latest = max(self._latest, int(self._clock().timestamp()))
        return self._latest

    def _require_key(self) -> None:
        if not self._keys:
            raise Unavailable("The server has no nonce key yet.")


def _mac(key: bytes, signed: bytes) -> bytes:
    # Keyed BLAKE2 (RFC 7693) is a MAC by itself and takes a third of the time of HMAC: two are made for every request.
    return blake2b(signed, digest_size=_MAC, key=key).digest()
