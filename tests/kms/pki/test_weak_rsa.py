from __future__ import annotations

import math
import random
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.weak_rsa import FERMAT_ROUNDS, has_close_primes, has_roca_fingerprint, rsa_weakness
from tests.support.pki import key
from tests.support.processor import least_time

ROCA_MODULUS = 0x924CBA6AE99DFA084537FACC54948DF0C23DA044D8CABE0EDD75BC6
"""The published modulus of the test: the product of the first 39 primes."""


def is_prime(number: int) -> bool:
    return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11, 13))


@cache
def prime(bits: int, seed: int) -> int:
    source = random.Random(seed)  # noqa: S311 - primes for tests, the same in each run
    while not is_prime(candidate := source.getrandbits(bits) | 1 << (bits - 1) | 1 << (bits - 2) | 1):
        continue
    return candidate


def prime_after(number: int) -> int:
    number += 1 + number % 2
    while not is_prime(number):
        number += 2
    return number


@cache
def infineon_prime(bits: int, seed: int) -> int:
    """A prime of the form that the affected chips made: k * M + (65537 ** a mod M)."""
    source = random.Random(seed)  # noqa: S311 - likewise
    while True:
        rest = pow(65537, source.getrandbits(60), ROCA_MODULUS)
        candidate = (source.getrandbits(bits - 220) | 1 << (bits - 221)) * ROCA_MODULUS + rest
        if is_prime(candidate):
            return candidate


@cache
def modulus(size: int) -> int:
    public_key = key("RSA", size).public_key()
    assert isinstance(public_key, RSAPublicKey)
    return public_key.public_numbers().n


@pytest.mark.parametrize("size", [2048, 3072, 4096])
def test_a_sound_key_has_no_weakness(size: int) -> None:
    assert rsa_weakness(modulus(size), 65537) is None


@pytest.mark.parametrize("exponent", [1, 2, 3, 17, 35, 65535, 65539, 2**16 + 2, 2**4000 + 1])
def test_the_exponent_must_be_65537(exponent: int) -> None:
    weakness = rsa_weakness(modulus(2048), exponent)
    assert weakness is not None
    assert "exponent" in weakness
    assert len(weakness) < 100


@pytest.mark.requirement("SEC32")
@pytest.mark.parametrize("factor", [2, 3, 5, 167, 3571, 5987])
def test_a_small_factor_is_found(factor: int) -> None:
    weakness = rsa_weakness(factor * modulus(2048), 65537)
    assert weakness == "its modulus has a small prime factor"


@pytest.mark.requirement("SEC32")
def test_a_key_of_infineons_chips_is_recognised() -> None:
    weak = infineon_prime(1024, seed=2) * infineon_prime(1024, seed=3)
    assert has_roca_fingerprint(weak)
    weakness = rsa_weakness(weak, 65537)
    assert weakness is not None
    assert "CVE-2017-15361" in weakness


def test_half_a_key_of_infineons_chips_is_none() -> None:
    assert not has_roca_fingerprint(infineon_prime(1024, seed=2) * prime(1024, seed=4))


@given(st.integers(min_value=0, max_value=2**62), st.integers(min_value=0, max_value=2**2000))
def test_every_power_of_the_generator_has_the_fingerprint(exponent: int, multiple: int) -> None:
    assert has_roca_fingerprint(multiple * ROCA_MODULUS + pow(65537, exponent, ROCA_MODULUS))


@given(st.integers(min_value=0, max_value=2**62), st.integers(min_value=2, max_value=166))
def test_a_power_that_is_off_modulo_some_primes_has_no_fingerprint(exponent: int, factor: int) -> None:
    """Residues that are powers of the generator prime by prime are not enough: they must be the same power."""
    other = pow(65537, exponent, ROCA_MODULUS) * factor % ROCA_MODULUS
    assert has_roca_fingerprint(other) is (
        math.gcd(other, ROCA_MODULUS) == 1 and pow(other, 2454106387091158800, ROCA_MODULUS) == 1 and in_group(other)
    )


def in_group(element: int) -> bool:
    """Pohlig-Hellman in the group of 65537, whose order is known: another road to the same answer."""
    order = 2454106387091158800
    for power, base in ((16, 2), (81, 3), (25, 5), *((each, each) for each in (7, 11, 13, 17, 23, 29, 37, 41, 53, 83))):
        assert power % base == 0
        generator = pow(65537, order // power, ROCA_MODULUS)
        target = pow(element, order // power, ROCA_MODULUS)
        if all(pow(generator, each, ROCA_MODULUS) != target for each in range(power)):
            return False
    return True


@pytest.mark.requirement("SEC32")
def test_close_primes_are_found() -> None:
    first = prime(1024, seed=5)
    second = prime_after(first)
    weakness = rsa_weakness(first * second, 65537)
    assert weakness is not None
    assert "Fermat" in weakness


def test_a_square_is_found() -> None:
    assert has_close_primes(prime(1024, seed=5) ** 2)


def test_fermats_method_goes_exactly_as_many_rounds_as_asked() -> None:
    """With a = s + k and n = a² - b² the factors show in round k + 1, counted from the root of n rounded up."""
    low = prime(256, seed=6)
    high = prime_after(low + 2**134)
    product, middle = low * high, (low + high) // 2
    needed = middle - math.isqrt(product - 1)
    assert 1 < needed < 10**6
    assert has_close_primes(product, rounds=needed)
    assert not has_close_primes(product, rounds=needed - 1)


@pytest.mark.requirement("SEC32")
def test_at_least_a_hundred_rounds_are_made() -> None:
    assert FERMAT_ROUNDS >= 100


@pytest.mark.requirement("SEC41")
def test_the_checks_cost_less_than_five_milliseconds() -> None:
    number = modulus(4096)
    assert least_time(lambda: rsa_weakness(number, 65537)) < 0.005
