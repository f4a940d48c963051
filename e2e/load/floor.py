"""The floor: what the parts of an order cost on this machine at this time, in CPU, with nothing of ours around them.

An order cannot cost less than the work that RFC 8555 and Kubernetes demand: nine HTTPS requests with one ES256
verification each, three writes of a custom resource, one HTTP-01 fetch, one request checked, one certificate signed.
Each part is done as barely as aiohttp and cryptography allow: requests by the server in bare.py (the server's CPU
counts, not its client's), all else in this process. Rounds are short, taken beside the load, and the median counts.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from e2e.load.bare import CHALLENGE, Bare, serving
from e2e.load.keys import AccountKey, certificate_key, certificate_request

CONNECTIONS = 8
REQUESTS, WRITES, FETCHES, CHECKS, SIGNATURES = 400, 20, 60, 100, 100
"""How often a round does each part; WRITES are each three writes."""

REQUEST, WRITE, FETCH, CHECK, SIGNATURE = "request", "write", "fetch", "csr", "signature"
AN_ORDER: Mapping[str, int] = MappingProxyType({REQUEST: 9, WRITE: 3, FETCH: 1, CHECK: 1, SIGNATURE: 1})
"""How many of each part make an order."""

ThreeWrites = Callable[[], Awaitable[None]]
"""Writes to the API server what an order is written: creates an object, puts its status twice."""


class Floor:
    """Takes rounds and keeps what they measured."""

    def __init__(self, *, bare: Bare, key: AccountKey, three_writes: ThreeWrites | None) -> None:
        self._bare = bare
        self._key = key
        self._three_writes = three_writes
        self._rounds: dict[str, list[float]] = {}
        self._issuer = certificate_key()
        self._request = certificate_request(["floor.load.test"], certificate_key())

    async def round(self) -> None:
        """Measure every part once more."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._bare.tls)) as session:
            self._add(REQUEST, await self._requests(session))
            self._add(FETCH, await _cpu_of(lambda: self._fetch(session), FETCHES))
        self._add(CHECK, await _cpu_of(self._check, CHECKS))
        self._add(SIGNATURE, await _cpu_of(self._sign, SIGNATURES))
        if self._three_writes is not None:
            self._add(WRITE, await _cpu_of(self._three_writes, WRITES) / 3)

    @property
    def parts(self) -> dict[str, float]:
        """Median CPU seconds of one request, one write and so on."""
        return {name: statistics.median(values) for name, values in self._rounds.items()}

    @property
    def rounds(self) -> int:
        """How many rounds were taken."""
        return len(self._rounds.get(REQUEST, ()))

    def _add(self, part: str, seconds: float) -> None:
        self._rounds.setdefault(part, []).append(seconds)

    async def _requests(self, session: aiohttp.ClientSession) -> float:
        header = {"alg": "ES256", "kid": f"{self._bare.https}/accounts/{'a' * 52}", "nonce": "n" * 43}
        body = self._key.jws(header | {"url": f"{self._bare.https}/new-order"}, {"identifiers": ["floor.load.test"]})

        async def some() -> None:
            for _ in range(REQUESTS // CONNECTIONS):
                async with session.post(f"{self._bare.https}/", data=body) as answer:
                    answer.raise_for_status()
                    await answer.read()

        before = await self._cpu_of_bare(session)
        await asyncio.gather(*(some() for _ in range(CONNECTIONS)))
        return (await self._cpu_of_bare(session) - before) / REQUESTS

    async def _cpu_of_bare(self, session: aiohttp.ClientSession) -> float:
        async with session.get(f"{self._bare.http}/cpu") as answer:
            return float(await answer.text())

    async def _fetch(self, session: aiohttp.ClientSession) -> None:
        # A validation meets another host each time, so the connection is new each time.
        async with session.get(f"{self._bare.http}{CHALLENGE}/t", headers={"Connection": "close"}) as answer:
            answer.raise_for_status()
            await answer.read()

    async def _check(self) -> None:
        check(self._request)

    async def _sign(self) -> None:
        leaf(self._issuer, self._issuer.public_key())


@asynccontextmanager
async def measuring(three_writes: ThreeWrites | None) -> AsyncIterator[Floor]:
    """A floor to take rounds of, with the bare server running. Without `three_writes` writes are left out."""
    key = AccountKey.generate()
    with serving(key.private.public_key()) as bare:
        yield Floor(bare=bare, key=key, three_writes=three_writes)


async def _cpu_of(work: Callable[[], Awaitable[None]], count: int) -> float:
    """CPU seconds of this process for doing the work once, from doing it `count` times one after the other."""
    begun = time.process_time()
    for _ in range(count):
        await work()
    return (time.process_time() - begun) / count


def check(der: bytes) -> frozenset[str]:
    """Parse a certificate request, check its signature, read its names.

    Raises:
        ValueError: if the signature does not verify.
    """
    request = x509.load_der_x509_csr(der)
    if not request.is_signature_valid:
        raise ValueError("the signature of the request does not verify")
    extension = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return frozenset(extension.value.get_values_for_type(x509.DNSName))


def leaf(issuer: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    """Build and sign a certificate with the extensions that every server certificate has."""
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Floor CA")]))
        .subject_name(x509.Name([]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("floor.load.test")]), critical=True)
        .sign(issuer, hashes.SHA256())
    )
