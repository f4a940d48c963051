"""RSA moduli that can be factored, recognised by the public key alone.

Each check covers one known failure of key generators:

* a divisor that a few divisions find: a broken or interrupted generator;
* the structure of keys from Infineon's chips (ROCA, CVE-2017-15361);
* primes close to each other, which Fermat's method finds (CVE-2022-26320).

Not covered: the keys of Debian's OpenSSL of 2006 to 2008 (CVE-2008-0166). They have no structure and are only known
from lists of nearly 300,000 fingerprints for each key size, several megabytes together. These cannot be reproduced
here, and a partial list would not be a check. The remaining risk is a key of 2048 bits or more (the default was 1024)
that was generated before 2008 and is still in use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

EXPONENT = 65537
FERMAT_ROUNDS = 100

_TRIAL_LIMIT = 6000
_ROCA_LARGEST_PRIME = 167


def _primes_below(limit: int) -> tuple[int, ...]:
    return tuple(each for each in range(2, limit) if all(each % divisor for divisor in range(2, math.isqrt(each) + 1)))


_SMALL_PRIMES = _primes_below(_TRIAL_LIMIT)
_SMALL_PRODUCT = math.prod(_SMALL_PRIMES)

_ROCA_PRIMES = tuple(each for each in _SMALL_PRIMES if each <= _ROCA_LARGEST_PRIME)
"""The primes whose product is the M of the smallest affected keys; it divides the M of all the larger ones."""
_ROCA_MODULUS = math.prod(_ROCA_PRIMES)


def _logarithms(prime: int) -> Mapping[int, int]:
    """For each power of the generator modulo `prime`, its exponent; as many entries as the generator has order."""
    powers: dict[int, int] = {}
    power = 1 % prime
    while power not in powers:
        powers[power] = len(powers)
        power = power * EXPONENT % prime
    return MappingProxyType(powers)


_ROCA_LOGARITHMS = tuple((prime, _logarithms(prime)) for prime in _ROCA_PRIMES)


def rsa_weakness(modulus: int, exponent: int) -> str | None:
    """Why this public key must not be used, as the end of a sentence; None if no weakness is found.

    The caller checks its size. For 4096 bits this takes less than half a millisecond.
    """
    if exponent != EXPONENT:
        return f"its public exponent is {_display(exponent)}, not {EXPONENT}"
    if math.gcd(modulus, _SMALL_PRODUCT) != 1:
        return "its modulus has a small prime factor"
    if has_roca_fingerprint(modulus):
        return "its modulus has the form that Infineon's chips made (ROCA, CVE-2017-15361)"
    if has_close_primes(modulus):
        return "its primes are so close that the modulus can be factored (Fermat's method)"
    return None


def has_roca_fingerprint(modulus: int) -> bool:
    """Whether the modulus is a power of 65537 modulo the product of the primes up to 167.

    Both primes of an affected key are (Nemec et al., The Return of Coppersmith's Attack, CCS 2017, 2.1), so their
    product is too; of other moduli one in 2^150 or so. The discrete logarithm exists if it exists modulo each of the
    primes and these residues belong to one number, which is found by the Chinese remainder theorem as they are met.
    """
    remainder = modulus % _ROCA_MODULUS
    logarithm, order = 0, 1
    for prime, logarithms in _ROCA_LOGARITHMS:
        residue = logarithms.get(remainder % prime)
        if residue is None:
            return False
        step, difference = len(logarithms), residue - logarithm
        shared = math.gcd(order, step)
        if difference % shared:
            return False
        turns = difference // shared * pow(order // shared, -1, step // shared) % (step // shared)
        logarithm += order * turns
        order = math.lcm(order, step)
    return True


def has_close_primes(modulus: int, rounds: int = FERMAT_ROUNDS) -> bool:
    """Whether Fermat's method factors the modulus within that many rounds.

    Round by round it asks whether a² - n is a square, from the smallest a that is possible upwards. Only numbers that
    are 0, 1, 4 or 9 modulo 16 can be squares, which spares most of the roots.
    """
    middle = math.isqrt(modulus - 1) + 1
    rest = middle * middle - modulus
    for _ in range(rounds):
        if rest & 15 in {0, 1, 4, 9} and math.isqrt(rest) ** 2 == rest:
            return True
        rest += 2 * middle + 1
        middle += 1
    return False


def _display(exponent: int) -> str:
    return str(exponent) if exponent.bit_length() <= 64 else f"a number of {exponent.bit_length()} bits"  # noqa: PLR2004 - what fits a line
