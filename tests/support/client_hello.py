"""ClientHellos of TLS 1.3 octet by octet, so that a test offers any group and sends the same one again."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FINITE_FIELDS = {f"ffdhe{bits}": (0x100 + index, bits) for index, bits in enumerate((2048, 3072, 4096, 6144, 8192))}
CURVES = {"P-256": (23, ec.SECP256R1()), "P-384": (24, ec.SECP384R1()), "P-521": (25, ec.SECP521R1())}
OTHERS = {"brainpoolP512r1": 28, "brainpoolP512r1tls13": 33, "X25519MLKEM768": 0x11EC, "unknown": 0x7A7A}
GROUPS = (*FINITE_FIELDS, *CURVES, *OTHERS, "X25519", "X448")


def client_hello(group: str) -> bytes:
    """A ClientHello that offers this group alone, with a key share of it (RFC 8446, 4.1.2)."""
    number, share = _share(group)
    extensions = b"".join(
        (
            _extension(43, bytes([2]) + _short(0x0304)),
            _extension(10, _vector(_short(number))),
            _extension(13, _vector(b"".join(map(_short, (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806))))),
            _extension(51, _vector(_short(number) + _vector(share))),
        )
    )
    ciphers = _vector(_short(0x1301) + _short(0x1302) + _short(0x1303))
    hello = _short(0x0303) + bytes(32) + bytes([32]) + bytes(32) + ciphers + b"\1\0" + _vector(extensions)
    return bytes([22, 3, 1]) + _vector(bytes([1, 0]) + _vector(hello))


def _share(group: str) -> tuple[int, bytes]:
    if group in FINITE_FIELDS:
        number, bits = FINITE_FIELDS[group]
        return number, (4).to_bytes(bits // 8, "big")
    if group in CURVES:
        number, curve = CURVES[group]
        public = ec.generate_private_key(curve).public_key()
        return number, public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if group == "X25519":
        return 29, X25519PrivateKey.generate().public_key().public_bytes_raw()
    if group == "X448":
        return 30, X448PrivateKey.generate().public_key().public_bytes_raw()
    return OTHERS[group], bytes(1216)


def _short(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _vector(value: bytes) -> bytes:
    return _short(len(value)) + value


def _extension(number: int, value: bytes) -> bytes:
    return _short(number) + _vector(value)
