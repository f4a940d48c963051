import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from acme_server.api.tls import ServingCertificate
from kms.resources import Secret
from kms.resources.meta import ObjectMeta
from tests.support.eventually import in_background, until

CA = trustme.CA()


def issued(authority: trustme.CA = CA) -> tuple[bytes, bytes]:
    made = authority.issue_cert("127.0.0.1")
    return made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes()


@asynccontextmanager
async def listening(certificate: ServingCertificate) -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def served(port: int, **options: ssl.TLSVersion) -> x509.Certificate:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    for name, value in options.items():
        setattr(context, name, value)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der)


@pytest.mark.requirement("SEC65")
async def test_a_new_certificate_is_used_for_new_handshakes() -> None:
    certificate = ServingCertificate()
    one, other = issued(), issued()
    certificate.load(*one, source="one")
    async with listening(certificate) as port:
        assert await served(port) == x509.load_pem_x509_certificate(one[0])
        certificate.load(*other, source="other")
        assert await served(port) == x509.load_pem_x509_certificate(other[0])


@pytest.mark.requirement("SEC65")
@pytest.mark.parametrize("broken", ["key of another", "no key", "no certificate", "nonsense", "encrypted"])
async def test_what_cannot_be_used_changes_nothing_and_is_told_of(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = ServingCertificate()
    good, other = issued(), issued()
    encrypted = load_pem_private_key(other[1], None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    certificate.load(*good, source="good")
    bad = {
        "key of another": (other[0], good[1]),
        "no key": (other[0], b""),
        "no certificate": (b"", other[1]),
        "nonsense": (b"x", b"y"),
        "encrypted": (other[0], encrypted),
    }[broken]
    certificate.load(*bad, source="Secret a/b")
    assert "cannot be used" in caplog.text
    assert [vars(each)["source"] for each in caplog.records if "cannot" in each.getMessage()] == ["Secret a/b"]
    async with listening(certificate) as port:
        assert await served(port) == x509.load_pem_x509_certificate(good[0])


@pytest.mark.requirement("SEC65")
async def test_tls_before_1_2_is_refused() -> None:
    certificate = ServingCertificate()
    certificate.load(*issued(), source="x")
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
    async with listening(certificate) as port:
        await served(port, maximum_version=ssl.TLSVersion.TLSv1_2)
        await served(port, minimum_version=ssl.TLSVersion.TLSv1_3)


def test_the_secret_is_used_when_it_is_complete(caplog: pytest.LogCaptureFixture) -> None:
    certificate = ServingCertificate()
    chain, key = issued()
    meta = ObjectMeta(name="serving", namespace="kms-acme")
    certificate.load_secret(Secret(metadata=meta, data={"tls.crt": chain}))
    assert not certificate.loaded.is_set()
    assert "incomplete" in caplog.text
    certificate.load_secret(Secret(metadata=meta, data={"tls.crt": chain, "tls.key": key}))
    assert certificate.loaded.is_set()


async def test_files_are_used_again_when_they_have_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate = ServingCertificate()
    chain, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    async with in_background(certificate.follow_files(chain, key, interval=0.01)):
        await until(lambda: "cannot be read" in caplog.text)
        async with listening(certificate) as port:
            for _ in range(2):
                made = issued()
                key.write_bytes(made[1])
                chain.write_bytes(made[0])
                expected = x509.load_pem_x509_certificate(made[0])
                await certificate.loaded.wait()
                for _ in range(1000):
                    if await served(port) == expected:
                        break
                    await asyncio.sleep(0.01)
                assert await served(port) == expected


@pytest.mark.requirement("SEC71")
@pytest.mark.parametrize(("bits", "warned"), [(3072, False), (4096, True)])
def test_a_key_that_makes_handshakes_slow_is_warned_of(
    bits: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    key = generate_private_key(65537, bits)
    chain = certificate_of(key).public_bytes(Encoding.PEM)
    serving = ServingCertificate()
    serving.load(chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), source="Secret a/b")
    assert serving.loaded.is_set()
    assert [vars(each)["bits"] for each in caplog.records if "slow" in each.getMessage()] == [bits] * warned


def certificate_of(key: RSAPrivateKey) -> x509.Certificate:
    name, now = x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, SHA256())


def test_no_file_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        ServingCertificate().load(*issued(), source="x")
        ServingCertificate().load(b"x", b"y", source="x")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
