"""Ed25519 public keys that prove nothing (RFC 8032, section 5.1).

Anyone can make signatures for a point of small order, for any message, without a private key. An encoding that is not
canonical is a second spelling of a key, past every comparison of keys by their bytes.
"""

from __future__ import annotations

_PRIME = 2**255 - 19
_SIGN = 2**255
_ORDER_EIGHT = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset({0, 1, _PRIME - 1, _ORDER_EIGHT, _PRIME - _ORDER_EIGHT})
"""The y-coordinates of the eight points whose order divides the cofactor: order 4, 1, 2, 8 and 8."""


def ed25519_weakness(encoded: bytes) -> str | None:
    """Why the point in these 32 octets must not be a public key; None if it may.

    Whether there is a point with that y-coordinate is not checked: without one, no signature verifies.
    """
    y = int.from_bytes(encoded, "little") & (_SIGN - 1)
    if y >= _PRIME:
        return "its encoding is not canonical"
    if y in _SMALL_ORDER:
        return "its point has a small order, so that anyone can sign with it"
    return None
