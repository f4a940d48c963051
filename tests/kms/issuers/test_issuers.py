from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509

from kms.issuers import Issued, IssuerNotReady, Issuers, KeyStores, SecretIssuer
from kms.pki.certificate import LeafTemplate, Signer, certificate_pem
from kms.pki.keys import PrivateKey, fingerprint, private_key_pem
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority
from kms.resources.core import Secret
from kms.resources.meta import ObjectMeta
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY, signing_key_name
from tests.support import pki

NAMESPACE = "kms-acme"


class Secrets:
    """Signing keys as an informer would hold them."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Secret] = {}

    def get(self, namespace: str, name: str) -> Secret | None:
        return self.stored.get((namespace, name))

    def put(self, signer: Signer, *, uid: str = "u1", version: str = "1") -> None:
        name = signing_key_name(uid)
        chain = "".join(map(certificate_pem, (signer.certificate, *signer.issuers)))
        self.stored[NAMESPACE, name] = Secret(
            metadata=ObjectMeta(name=name, namespace=NAMESPACE, resource_version=version),
            data={TLS_CERTIFICATE: chain.encode(), TLS_PRIVATE_KEY: private_key_pem(signer.key)},
        )


def authority(signer: Signer | None, *, uid: str = "u1") -> CertificateAuthority:
    certificate = None if signer is None else certificate_pem(signer.certificate)
    return CertificateAuthority(
        metadata=ObjectMeta(name="issuing", namespace="pki", uid=uid),
        spec=AuthoritySpec(),
        status=AuthorityStatus(certificate=certificate),
    )


def template() -> LeafTemplate:
    return pki.leaf(serial=0xAB12, not_after=pki.NOW + timedelta(days=1))


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture
def issuers(secrets: Secrets) -> Issuers:
    return Issuers(find_secret=secrets.get, namespace=NAMESPACE, key_stores=KeyStores.build())


@pytest.mark.parametrize(("algorithm", "size"), [("ECDSA", 256), ("Ed25519", None), ("RSA", 2048)])
async def test_an_issuer_signs_with_any_kind_of_key(
    issuers: Issuers, secrets: Secrets, algorithm: str, size: int | None
) -> None:
    signer = pki.root(with_key=pki.key(algorithm, size, "ca"))
    secrets.put(signer)
    issued = await issuers.of(authority(signer)).sign(template())
    leaf, ca = x509.load_pem_x509_certificates(issued.chain.encode())
    leaf.verify_directly_issued_by(signer.certificate)
    assert ca == signer.certificate
    authority_key = x509.SubjectKeyIdentifier.from_public_key(signer.key.public_key()).digest.hex()
    assert issued == Issued(
        chain=issued.chain,
        serial_number="ab12",
        authority_key_id=authority_key,
        public_key_digest=fingerprint(template().public_key),
        not_before=pki.NOW,
        not_after=pki.NOW + timedelta(days=1),
    )


class CountingExecutor(ThreadPoolExecutor):
    submitted = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.submitted += 1
        return super().submit(*args, **kwargs)


@pytest.mark.requirement("SEC41")
@pytest.mark.parametrize(("algorithm", "size", "threads"), [("RSA", 2048, 1), ("ECDSA", 256, 0), ("Ed25519", None, 0)])
async def test_only_rsa_leaves_the_event_loops_thread(algorithm: str, size: int | None, threads: int) -> None:
    with CountingExecutor(max_workers=1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        await SecretIssuer(pki.root(with_key=pki.key(algorithm, size, "ca"))).sign(template())
        assert executor.submitted == threads


async def test_the_chain_of_an_intermediate_leaves_the_root_out(issuers: Issuers, secrets: Secrets) -> None:
    signer = pki.below(pki.root())
    secrets.put(signer)
    issued = await issuers.of(authority(signer)).sign(template())
    assert x509.load_pem_x509_certificates(issued.chain.encode())[1:] == [signer.certificate]


@pytest.mark.requirement("SEC31")
def test_the_end_is_that_of_whatever_ends_first_above_the_leaf(issuers: Issuers, secrets: Secrets) -> None:
    end = pki.NOW + timedelta(days=30)
    intermediate = pki.below(pki.root())
    signer = Signer(intermediate.certificate, intermediate.key, (pki.root(not_after=end).certificate,))
    secrets.put(signer)
    assert issuers.of(authority(signer)).not_after == end


@pytest.mark.requirement("SEC29")
async def test_what_must_not_be_signed_is_refused(issuers: Issuers, secrets: Secrets) -> None:
    signer = pki.root()
    secrets.put(signer)
    beyond = pki.leaf(not_after=signer.not_after + timedelta(seconds=1))
    with pytest.raises(ValueError, match="CA"):
        await issuers.of(authority(signer)).sign(beyond)


def test_without_its_secret_an_issuer_is_not_ready(issuers: Issuers) -> None:
    with pytest.raises(IssuerNotReady, match="signing key of CertificateAuthority pki/issuing does not exist"):
        issuers.of(authority(pki.root()))


def other_root() -> Signer:
    return pki.root(with_key=pki.key(which="another"), serial=2)


@pytest.mark.requirement("SEC59")
@pytest.mark.parametrize("published", [None, "another"])
def test_a_key_that_does_not_go_with_the_published_certificate_never_signs(
    issuers: Issuers, secrets: Secrets, published: str | None
) -> None:
    secrets.put(pki.root())
    with pytest.raises(IssuerNotReady, match="does not belong to the certificate in its status"):
        issuers.of(authority(other_root() if published else None))


def test_a_certificate_with_a_key_that_is_not_its_own_never_signs(issuers: Issuers, secrets: Secrets) -> None:
    signer = pki.root()
    secrets.put(Signer(signer.certificate, signer.key))
    _swap_key(secrets, pki.key(which="another"))
    with pytest.raises(IssuerNotReady, match="cannot be used"):
        issuers.of(authority(signer))


def _swap_key(secrets: Secrets, key: PrivateKey) -> None:
    ((place, secret),) = secrets.stored.items()
    data = secret.data | {TLS_PRIVATE_KEY: private_key_pem(key)}
    secrets.stored[place] = msgspec.structs.replace(secret, data=data)


@pytest.mark.requirement("SEC59", "SEC64")
@pytest.mark.parametrize("data", [{}, {TLS_PRIVATE_KEY: b"-----BEGIN SECRET", TLS_CERTIFICATE: b"-----BEGIN SECRET"}])
def test_a_secret_that_cannot_be_read_is_reported_and_not_quoted(
    issuers: Issuers, secrets: Secrets, data: dict[str, bytes]
) -> None:
    name = signing_key_name("u1")
    secrets.stored[NAMESPACE, name] = Secret(metadata=ObjectMeta(name=name, namespace=NAMESPACE), data=data)
    with pytest.raises(IssuerNotReady, match="cannot be used") as caught:
        issuers.of(authority(pki.root()))
    assert "SECRET" not in str(caught.value)


def test_an_issuer_is_made_once_for_each_version_of_its_secret(issuers: Issuers, secrets: Secrets) -> None:
    signer = pki.root()
    secrets.put(signer)
    first = issuers.of(authority(signer))
    assert issuers.of(authority(signer)) is first
    secrets.put(signer, version="2")
    assert issuers.of(authority(signer)) is not first


async def test_during_a_renewal_nothing_is_signed_until_both_sides_agree(issuers: Issuers, secrets: Secrets) -> None:
    old, new = pki.root(), pki.root(serial=2)
    secrets.put(old)
    issuers.of(authority(old))
    secrets.put(new, version="2")
    with pytest.raises(IssuerNotReady):
        issuers.of(authority(old))
    issued = await issuers.of(authority(new)).sign(template())
    assert x509.load_pem_x509_certificates(issued.chain.encode())[1] == new.certificate
    secrets.put(new, version="3")
    with pytest.raises(IssuerNotReady):  # the status is the one that lags
        issuers.of(authority(old))


def test_the_key_of_a_deleted_authority_is_forgotten(issuers: Issuers, secrets: Secrets) -> None:
    signer, other = pki.root(), other_root()
    secrets.put(signer)
    issuers.of(authority(signer))
    secrets.stored.clear()
    secrets.put(other, uid="u2")
    issuers.of(authority(other, uid="u2"))
    assert len(issuers) == 1
    secrets.stored.clear()
    with pytest.raises(IssuerNotReady):
        issuers.of(authority(other, uid="u2"))
    assert len(issuers) == 0
