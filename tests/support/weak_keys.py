"""Ed25519 public keys that prove nothing."""

from __future__ import annotations

_PRIME = 2**255 - 19
_ORDER_EIGHT = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
)
_SIGN = 2**255

SMALL_ORDER: tuple[bytes, ...] = (
    (1).to_bytes(32, "little"),
    (_PRIME - 1).to_bytes(32, "little"),
    (0).to_bytes(32, "little"),
    _SIGN.to_bytes(32, "little"),
    *map(bytes.fromhex, _ORDER_EIGHT),
)
"""The points of small order; the first is the neutral element."""

NON_CANONICAL: tuple[bytes, ...] = (
    *((_PRIME + y).to_bytes(32, "little") for y in range(19)),
    *((_SIGN + _PRIME + y).to_bytes(32, "little") for y in range(19)),
    (_SIGN + 1).to_bytes(32, "little"),
    (_SIGN + _PRIME - 1).to_bytes(32, "little"),
)
"""Second spellings: y not below the prime, or the sign of an x that is zero."""


def signature_of_nobody() -> bytes:
    """A signature by the neutral element, made without a private key: R = S * B with S = 0."""
    return SMALL_ORDER[0] + bytes(32)
