"""Nonces that take no memory until they are used (RFC 8555, 6.5).

A nonce is 33 octets in base64url: the replica that issued it (6), the time in seconds (4), its number at that replica
(5), and a MAC of these (18) under a key that all replicas share. So every replica recognises the nonces of all others,
others cannot forge one, and each nonce has one spelling. Where there are several replicas, it has 42 octets: before the
MAC there is what the client has seen, a resourceVersion (6) and the tag of an order (3).

Only the issuing replica knows whether a nonce has been used: it keeps a bit for each number, in chunks. A chunk is
created when the first of its nonces is redeemed. It is dropped when the latest redeemed one has expired, because then
all nonces with a bit in it have expired too. Memory is bounded by one bit for each nonce issued in the last hour.

A replica draws its identity when it starts: nonces from before a restart are unknown.
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from dataclasses import dataclass
from hashlib import blake2b

from msgspec import Struct

from acme_server.jose.decoding import base64url
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.sessions import Seen
from kms.clock import Clock, Entropy

LIFETIME = 3600
"""Seconds for which a nonce is valid. cert-manager stores a hundred of them for later."""

_REPLICA, _TIME, _NUMBER, _MAC = 6, 4, 5, 18
_SIGNED = _REPLICA + _TIME + _NUMBER
_VERSION, _TAG = 6, 3
_LONGEST = _SIGNED + _VERSION + _TAG + _MAC
_NUMBERS, _TAGS = 2 ** (8 * _NUMBER), 2 ** (8 * _TAG)
_TO_URL = bytes.maketrans(b"+/", b"-_")
"""To the alphabet of base64url."""
_SPELLED = {4 * octets // 3 for octets in (_SIGNED + _MAC, _LONGEST)}


class Nonce(Struct, frozen=True):
    """A nonce that one of our replicas has issued. Only that replica knows whether it has been used.

    `seen` is what the client had seen when it got the nonce; None: the nonce does not say.
    """

    text: str
    replica: str
    issued: int
    number: int
    seen: Seen | None = None


def bad_nonce() -> Refused:
    """The refusal after which a client tries again with the nonce of the response."""
    return Refused(ProblemType.BAD_NONCE, "The nonce is unknown, expired or used; try again with the one given here.")


@dataclass(slots=True)
class _Chunk:
    """The bits of consecutive numbers, and when the newest redeemed nonce of them was issued."""

    bits: bytearray
    newest: int = 0


class Nonces:
    """Issues and redeems the nonces of this replica, and recognises those of the others.

    `chunk` is the number of nonces in a chunk: a multiple of eight.
    """

    def __init__(self, *, clock: Clock, entropy: Entropy, chunk: int = 4096) -> None:
        self._clock = clock
        self._chunk = chunk
        self._life = entropy(_REPLICA)
        self.replica = self._life.hex()
        self.carry_seen = False
        """Whether nonces say what clients have seen: there are other replicas, and all of them can read it."""
        self.ready = False
        """Whether there is a key for issuing nonces."""
        self._keys: tuple[bytes, ...] = ()
        self._secret = b""
        self._issued = 0
        self._latest = 0
        self._chunks: dict[int, _Chunk] = {}

    @property
    def memory(self) -> int:
        """The octets that redeemed nonces take."""
        return sum(len(chunk.bits) for chunk in self._chunks.values())

    def use(self, secret: bytes) -> None:
        """Use this shared secret from now on. Nonces made with the previous one remain valid."""
        if secret and secret != self._secret:
            self._secret = secret
            self._keys = (hmac.digest(secret, b"nonces", "sha256"), *self._keys[:1])
            self.ready = True

    def derive_key(self, purpose: bytes) -> bytes:
        """A key for another purpose among the replicas. Raises Unavailable while there is no secret."""
        if not self.ready:
            raise _no_key()
        return hmac.digest(self._secret, purpose, "sha256")

    def issue(self, seen: Seen | None = None) -> str:
        """A new nonce, for a client that has seen so much. Raises Unavailable while there is no key."""
        if not self.ready:
            raise _no_key()
        self._issued += 1
        signed = self._life + (self._now() * _NUMBERS + self._issued).to_bytes(_TIME + _NUMBER, "big")
        if seen is not None and self.carry_seen and seen.version < 2 ** (8 * _VERSION):
            signed += (seen.version * _TAGS + seen.tag).to_bytes(_VERSION + _TAG, "big")
        value = signed + _mac(self._keys[0], signed)  # 33 or 42 octets need no padding
        return b2a_base64(value, newline=False).translate(_TO_URL).decode()

    def read(self, text: str) -> Nonce:
        """The nonce that a client has sent.

        Raises Refused: malformed if it is not base64url, badNonce if none of our replicas has issued it.
        """
        if not self.ready:
            raise _no_key()
        value = base64url(text, "The nonce") if len(text) <= 2 * _LONGEST else b""
        signed, mac = value[:-_MAC], value[-_MAC:]
        if len(text) not in _SPELLED:
            raise bad_nonce()
        for key in self._keys:
            if hmac.compare_digest(_mac(key, signed), mac):
                break
        else:
            raise bad_nonce()
        issued, number = divmod(int.from_bytes(signed[_REPLICA:_SIGNED], "big"), _NUMBERS)
        version, tag = divmod(int.from_bytes(signed[_SIGNED:], "big"), _TAGS)  # both 0 in a short nonce
        seen = Seen(version, tag) if version else None
        return Nonce(text, signed[:_REPLICA].hex(), issued, number, seen)

    def redeem(self, nonce: Nonce) -> bool:
        """Use up a nonce of this replica. True the first time, unless it has expired."""
        now = self._now()
        if nonce.replica != self.replica or nonce.issued + LIFETIME < now:
            return False
        index, position = divmod(nonce.number, self._chunk)
        chunk = self._chunks.get(index)
        if chunk is None:
            self._drop_expired(now)
            chunk = self._chunks[index] = _Chunk(bytearray(self._chunk // 8))
        octet, bit = position // 8, 1 << position % 8
        if chunk.bits[octet] & bit:
            return False
        chunk.bits[octet] |= bit
        chunk.newest = max(chunk.newest, nonce.issued)
        return True

    def _drop_expired(self, now: int) -> None:
        for index in [index for index, chunk in self._chunks.items() if chunk.newest + LIFETIME < now]:
            del self._chunks[index]

    def _now(self) -> int:
        """The time in seconds, which never goes back: a clock that is set back must not revive dropped nonces."""
        self._latest = max(self._latest, int(self._clock().timestamp()))
        return self._latest


def _no_key() -> Unavailable:
    return Unavailable("The server has no nonce key yet.")


def _mac(key: bytes, signed: bytes) -> bytes:
    # Keyed BLAKE2 (RFC 7693) is a MAC by itself and takes a third of the time of HMAC: two are made for every request.
    return blake2b(signed, digest_size=_MAC, key=key).digest()
