from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kms.pki.csr import InvalidRequest, parse_request
from kms.pki.keys import weakness
from kms.pki.weak_ed25519 import ed25519_weakness
from tests.support.pki import csr
from tests.support.weak_keys import NON_CANONICAL, SMALL_ORDER, signature_of_nobody

pytestmark = pytest.mark.requirement("SEC84")

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493

Point = tuple[int, int]


def add(one: Point, other: Point) -> Point:
    """The sum of two points (RFC 8032, 5.1.4, in affine coordinates)."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def multiply(number: int, point: Point) -> Point:
    result: Point = (0, 1)
    while number:
        if number & 1:
            result = add(result, point)
        point = add(point, point)
        number >>= 1
    return result


def points() -> Iterator[Point]:
    """Points of the curve (RFC 8032, 5.1.3)."""
    for y in range(2, 200):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        for root in (x, x * pow(2, (P - 1) // 4, P) % P):
            if (root * root - square) % P == 0:
                yield root, y
                yield P - root, y
                break


def encode(point: Point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def test_the_eight_points_of_small_order_are_known() -> None:
    small = {multiply(ORDER, point) for point in points()}
    assert len(small) == 8
    assert {encode(each) for each in small} == set(SMALL_ORDER)
    for point in small:
        assert multiply(8, point) == (0, 1)


@pytest.mark.parametrize("encoded", SMALL_ORDER, ids=bytes.hex)
def test_points_of_small_order_are_weak(encoded: bytes) -> None:
    assert "small order" in (ed25519_weakness(encoded) or "")
    assert "small order" in (weakness(Ed25519PublicKey.from_public_bytes(encoded)) or "")


@pytest.mark.parametrize("encoded", NON_CANONICAL, ids=bytes.hex)
def test_encodings_that_are_not_canonical_are_weak(encoded: bytes) -> None:
    assert ed25519_weakness(encoded) is not None
    assert weakness(Ed25519PublicKey.from_public_bytes(encoded)) is not None


def test_generated_keys_and_other_points_are_sound() -> None:
    for _ in range(20):
        assert ed25519_weakness(Ed25519PrivateKey.generate().public_key().public_bytes_raw()) is None
    assert all(ed25519_weakness(encode(point)) is None for point in points())


def test_a_signature_of_nobody_is_good_for_every_message() -> None:
    """The library accepts it: so keys must be refused, since signatures are not."""
    key = Ed25519PublicKey.from_public_bytes(SMALL_ORDER[0])
    for message in (b"one", b"two"):
        key.verify(signature_of_nobody(), message)
    sound = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(InvalidSignature):
        sound.verify(signature_of_nobody(), b"one")


def test_a_request_signed_by_nobody_is_refused() -> None:
    private = Ed25519PrivateKey.generate()
    der = csr("www.example.com", signed_with=private)
    der = der.replace(private.public_key().public_bytes_raw(), SMALL_ORDER[0])
    der = der[:-64] + signature_of_nobody()
    with pytest.raises(InvalidRequest, match="small order"):
        parse_request(der)
