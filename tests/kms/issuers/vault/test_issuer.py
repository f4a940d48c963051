"""The CA of a real OpenBao: what is asked for, what comes back, and what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.issuers import IssuerNotReady
from kms.issuers.protocol import Answer, Failed, Pending, Refused, Returned, Submission, Unavailable, request_name
from kms.issuers.vault import Credentials, VaultSession
from kms.issuers.vault.issuer import VaultIssuer, vault_issuer
from kms.issuers.vault.path import InvalidPath, SigningPath, signing_path
from kms.pki.certificate import certifies
from kms.resources.authorities import AuthoritySpec, CertificateAuthority, ExternalAuthority
from kms.resources.core import Secret
from kms.resources.meta import ObjectMeta
from tests.support.openbao import TOKEN_AUTH, OpenBao
from tests.support.pki import csr, key

DAY = timedelta(days=1)


def submission(
    *names: str,
    attempt: int = 1,
    common_name: str | None = None,
    duration: timedelta = DAY,
    not_after: datetime | None = None,
) -> Submission:
    return Submission(
        name=request_name(uid="uid", digest="digest", attempt=attempt),
        order=("team", "order-1"),
        order_uid="uid",
        attempt=attempt,
        request=csr(*names, common_name=common_name),
        usages=("server auth", "digital signature"),
        duration=duration,
        not_after=not_after,
    )


@asynccontextmanager
async def issuing(openbao: OpenBao, path: str, *, token: str | None = None) -> AsyncIterator[VaultIssuer]:
    """The issuer for a path, with a token that may do what the documentation says."""
    found = signing_path(path)
    token = token or openbao.token(openbao.pki_policy(found.mount))
    session = VaultSession(openbao.server(TOKEN_AUTH), lambda: Credentials(token=token))
    issuer = VaultIssuer("pki/corporate", found, session)
    try:
        yield issuer
    finally:
        await issuer.close()


async def answer(issuer: VaultIssuer, asked: Submission) -> Answer:
    await issuer.begin(asked)
    return await issuer.look(asked)


def certificates(answer: Answer) -> list[x509.Certificate]:
    assert isinstance(answer, Returned), answer
    return x509.load_pem_x509_certificates(answer.pem)


def names_in(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each.value) for each in found}


@pytest.mark.requirement("X20")
async def test_a_certificate_of_an_issuing_ca(openbao: OpenBao) -> None:
    root = openbao.root_ca()
    mount = openbao.issuing_ca(root)
    names = ("www.a.test", "a.test", "10.0.0.1", "2001:db8::1")
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        leaf, issuing_ca = certificates(await answer(issuer, submission(*names, common_name="a.test")))
    assert certifies(issuing_ca, leaf)
    assert names_in(leaf) == set(names)
    assert leaf.public_key() == key().public_key()
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [each.dotted_string for each in usages] == ["1.3.6.1.5.5.7.3.1"]
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= DAY


@pytest.mark.requirement("X20")
async def test_a_root_that_signs_itself_returns_the_certificate_alone(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        (leaf,) = certificates(await answer(issuer, submission("a.test")))
    assert names_in(leaf) == {"a.test"}


async def test_a_role_that_takes_names_from_the_parameters_gets_the_same(openbao: OpenBao) -> None:
    mount = openbao.root_ca(use_csr_sans=False, use_csr_common_name=False)
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        (leaf,) = certificates(await answer(issuer, submission("www.a.test", "10.0.0.1")))
    assert names_in(leaf) == {"www.a.test", "10.0.0.1"}


@pytest.mark.requirement("X20")
async def test_an_issuer_of_several_in_one_engine(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    second = openbao.write(f"{mount}/root/generate/internal", common_name="Second", issuer_name="second")
    token = openbao.token(openbao.policy({f"{mount}/issuer/second/sign/web": ("update",)}))
    async with issuing(openbao, f"{mount}/issuer/second/sign/web", token=token) as issuer:
        (leaf,) = certificates(await answer(issuer, submission("a.test")))
    assert certifies(x509.load_pem_x509_certificate(second["certificate"].encode()), leaf)


@pytest.mark.requirement("X20")
async def test_a_namespace(openbao: OpenBao) -> None:
    inside = openbao.within("team-b")
    mount = inside.root_ca()
    async with issuing(inside, f"{mount}/sign/web") as issuer:
        assert certificates(await answer(issuer, submission("a.test")))
    async with issuing(openbao, f"{mount}/sign/web", token=openbao.root_token) as issuer:
        assert isinstance(await answer(issuer, submission("a.test")), Pending)


@pytest.mark.requirement("X18")
async def test_an_end_that_the_client_asked_for_is_kept_to_the_second(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5, seconds=7)
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        asked = submission("a.test", duration=timedelta(hours=5, seconds=7), not_after=end)
        assert certificates(await answer(issuer, asked))[0].not_valid_after_utc == end
        shorter = submission("a.test", attempt=2, duration=timedelta(hours=1), not_after=end)
        assert certificates(await answer(issuer, shorter))[0].not_valid_after_utc < end - timedelta(hours=3)


@pytest.mark.requirement("X20")
async def test_what_the_ca_warns_of_is_logged(openbao: OpenBao, caplog: pytest.LogCaptureFixture) -> None:
    mount = openbao.root_ca(max_ttl="1h")
    caplog.set_level(logging.INFO)
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        (leaf,) = certificates(await answer(issuer, submission("a.test")))
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=1)
    (warning,) = [vars(each)["warning"] for each in caplog.records if each.message == "the CA warns"]
    assert "longer than permitted" in warning


@pytest.mark.requirement("X24")
async def test_asking_again_for_one_attempt_signs_once(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        first = submission("a.test")
        found = [await answer(issuer, first), await answer(issuer, first)]
        assert found[0] == found[1]
        assert openbao.certificates_of(mount) == 2
        await issuer.forget(first)
        lost = await issuer.look(first)
        assert isinstance(lost, Unavailable)
        assert lost.is_ambiguous, "the CA may have signed what a process has lost"
        assert openbao.certificates_of(mount) == 2


@pytest.mark.requirement("X37")
@pytest.mark.parametrize(
    ("role", "asked", "expected"),
    [
        ({}, submission("a.elsewhere"), Refused),
        ({"require_cn": True}, submission("a.test"), Refused),
        ({"key_type": "rsa"}, submission("a.test"), Refused),
        ({"max_ttl": "80000h"}, submission("a.test", duration=3000 * DAY), Failed),
    ],
    ids=["name", "common-name", "key", "ca-ends"],
)
async def test_what_the_role_refuses(
    openbao: OpenBao, role: dict[str, object], asked: Submission, expected: type[Answer]
) -> None:
    mount = openbao.root_ca(**role)
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        found = await answer(issuer, asked)
    assert isinstance(found, expected)
    assert not isinstance(found, Failed) or found.is_final
    assert "HTTP 400: " in found.message  # type: ignore[union-attr]  # the CA's words are for administrators


def no_role(openbao: OpenBao, mount: str) -> Callable[[], None]:
    openbao.request("DELETE", f"{mount}/roles/web")
    return lambda: openbao.role(mount)


def no_engine(openbao: OpenBao, mount: str) -> Callable[[], None]:
    openbao.move(mount, f"{mount}-away")
    return lambda: openbao.move(f"{mount}-away", mount)


@pytest.mark.requirement("X37", "X38")
@pytest.mark.parametrize("broken", [no_role, no_engine], ids=["role", "engine"])
async def test_configuration_that_is_missing_is_waited_for(
    openbao: OpenBao, broken: Callable[[OpenBao, str], Callable[[], None]]
) -> None:
    mount = openbao.root_ca()
    async with issuing(openbao, f"{mount}/sign/web", token=openbao.root_token) as issuer:
        mend = broken(openbao, mount)
        found = await answer(issuer, submission("a.test"))
        assert isinstance(found, Pending)
        assert found.reason == "IssuerNotReady"
        mend()
        assert isinstance(await issuer.look(submission("a.test")), Returned)


@pytest.mark.requirement("X37")
async def test_a_token_that_may_not_sign_is_waited_for(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    policy = openbao.policy({"sys/mounts": ("read",)})
    async with issuing(openbao, f"{mount}/sign/web", token=openbao.token(policy)) as issuer:
        found = await answer(issuer, submission("a.test"))
        assert found == Pending(
            "AuthenticationFailed", f"POST {mount}/sign/web: HTTP 403: 1 error occurred:\n\t* permission denied"
        )
        openbao.write(f"sys/policies/acl/{policy}", policy=f'path "{mount}/sign/web" {{ capabilities = ["update"] }}')
        assert isinstance(await issuer.look(submission("a.test")), Returned)


@pytest.mark.requirement("X37", "X38")
async def test_a_quota_and_a_seal_are_for_another_attempt(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        openbao.request("POST", f"sys/quotas/rate-limit/{mount}", {"path": mount, "rate": 1, "interval": "1h"})
        assert isinstance(await answer(issuer, submission("a.test")), Returned)
        found = await answer(issuer, submission("a.test", attempt=2))
        assert isinstance(found, Unavailable)
        assert "HTTP 429" in found.message
        assert not found.is_ambiguous
        openbao.request("DELETE", f"sys/quotas/rate-limit/{mount}")
        openbao.seal()
        try:
            found = await answer(issuer, submission("a.test", attempt=3))
        finally:
            openbao.unseal()
        assert isinstance(found, Unavailable)
        assert not found.is_ambiguous
        assert isinstance(await answer(issuer, submission("a.test", attempt=4)), Returned)


@pytest.mark.requirement("X37")
async def test_an_unknown_issuer_fails_at_once_and_may_be_tried_again(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    async with issuing(openbao, f"{mount}/issuer/nobody/sign/web", token=openbao.root_token) as issuer:
        found = await answer(issuer, submission("a.test"))
    assert isinstance(found, Failed)
    assert not found.is_final


@pytest.mark.requirement("X44")
@pytest.mark.parametrize("no_store", [False, True], ids=["stored", "not-stored"])
async def test_revocation_by_serial_number_or_certificate_and_again(openbao: OpenBao, no_store: bool) -> None:
    mount = openbao.root_ca(no_store=no_store)
    async with issuing(openbao, f"{mount}/sign/web") as issuer:
        (leaf,) = certificates(await answer(issuer, submission("a.test")))
        der = leaf.public_bytes(Encoding.DER)
        assert await issuer.revoke(der)
        assert await issuer.revoke(der)
    listed = x509.load_pem_x509_crl(openbao.read(f"{mount}/cert/crl")["certificate"].encode())
    assert listed.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


@pytest.mark.requirement("X44")
async def test_a_revocation_that_is_not_confirmed_is_told(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    policy = openbao.policy({f"{mount}/sign/web": ("update",)})
    async with issuing(openbao, f"{mount}/sign/web", token=openbao.token(policy)) as issuer:
        (leaf,) = certificates(await answer(issuer, submission("a.test")))
        with pytest.raises(IssuerNotReady, match=f"pki/corporate has not revoked .*{mount}/revoke: HTTP 403"):
            await issuer.revoke(leaf.public_bytes(Encoding.DER))


@pytest.mark.requirement("X5")
async def test_credentials_are_those_of_the_secret_at_each_call(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    vault = openbao.authority(f"{mount}/sign/web", TOKEN_AUTH)
    authority = CertificateAuthority(
        metadata=ObjectMeta(name="corporate", namespace="pki", uid="1234"),
        spec=AuthoritySpec(external=ExternalAuthority(vault=vault)),
    )
    secrets: dict[tuple[str, str], Secret] = {}
    issuer = vault_issuer(authority, find_secret=lambda *key: secrets.get(key), namespace="kms-acme")
    try:
        found = await answer(issuer, submission("a.test"))
        assert found == Pending("AuthenticationFailed", "no credentials: the operator has not written them yet")
        token = openbao.token(openbao.pki_policy(mount))
        secrets["kms-acme", "ca-1234"] = Secret(metadata=ObjectMeta(name="ca-1234"), data={"token": token.encode()})
        assert isinstance(await issuer.look(submission("a.test")), Returned)
    finally:
        await issuer.close()


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("pki/sign/web", SigningPath("pki", "web")),
        ("team/a/pki/sign/web", SigningPath("team/a/pki", "web")),
        ("pki/issuer/second/sign/web", SigningPath("pki", "web", "second")),
        ("sign/sign/sign", SigningPath("sign", "sign")),
        ("issuer/issuer/issuer/sign/web", SigningPath("issuer", "web", "issuer")),
    ],
)
def test_paths_of_roles(path: str, parts: SigningPath) -> None:
    assert signing_path(path) == parts


@pytest.mark.parametrize(
    "path",
    [
        "pki/sign-verbatim/web",
        "pki/sign",
        "sign/web",
        "/pki/sign/web",
        "pki/sign/web/",
        "pki/../sys/sign/web",
        "pki/sign/..",
        "pki/sign/web?x=y",
        "pki/sign/web\n",
        "pki//sign/web",
    ],
)
def test_what_is_no_path_of_a_role(path: str) -> None:
    with pytest.raises(InvalidPath):
        signing_path(path)
