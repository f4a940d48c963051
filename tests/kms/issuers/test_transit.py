"""Keys of the transit engine, with a real OpenBao."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from kms.issuers.key_stores import KeyLocation, KeyStoreNotReady, KeyStoreRefused
from kms.issuers.key_stores.transit import TransitKeys
from kms.pki.certificate import Signer, sign_leaf
from kms.pki.crl import ListTemplate, encode_entry, revocation_list
from kms.pki.keys import PrivateKey, key_algorithm
from kms.pki.stand_in import ToBeSigned, absent, completed, to_be_signed, verify
from kms.resources.authorities import AppRoleAuth, KeyStore, KubernetesAuth, SecretKeyRef, TransitKeyStore, VaultAuth
from kms.resources.meta import LocalRef
from kms.resources.secret_names import VAULT_JWT, VAULT_ROLE_ID, VAULT_SECRET_ID, VAULT_TOKEN
from tests.support import pki
from tests.support.openbao import TOKEN_AUTH, OpenBao

KEYS = [("ECDSA", 256), ("ECDSA", 384), ("ECDSA", 521), ("RSA", 2048), ("Ed25519", None)]
MESSAGE = ToBeSigned(b"message", "sha384")


@pytest.fixture
async def keys() -> AsyncIterator[TransitKeys]:
    keys = TransitKeys()
    yield keys
    await keys.close()


def location(openbao: OpenBao, mount: str, *, key: str = "issuing", token: str = "", **fields: object) -> KeyLocation:
    values = {"server": openbao.url, "ca_bundle": openbao.ca_bundle, "namespace": openbao.namespace, **fields}
    store = TransitKeyStore(**{"auth": TOKEN_AUTH, "mount_path": mount, "key": key, **values})  # type: ignore[arg-type]
    return KeyLocation.of(KeyStore(transit=store), {VAULT_TOKEN: (token or openbao.root_token).encode()})


def pinned(location: KeyLocation, version: int) -> KeyLocation:
    store = location.store.transit
    assert store is not None
    return KeyLocation(KeyStore(transit=replace(store, key_version=version)), location.credentials)


def limited(openbao: OpenBao, mount: str) -> str:
    """The policy that docs/operations.md describes."""
    paths = {f"{mount}/keys/issuing": ("create", "read", "update")}
    return openbao.policy(paths | {f"{mount}/sign/issuing{each}": ("update",) for each in ("", "/*")})


@pytest.mark.requirement("X53", "X56")
@pytest.mark.parametrize(("algorithm", "size"), KEYS)
async def test_a_key_is_made_once_and_signs_certificates_and_lists(
    keys: TransitKeys, openbao: OpenBao, algorithm: str, size: int | None
) -> None:
    mount = openbao.mount("transit")
    where = location(openbao, mount, token=openbao.token(limited(openbao, mount)))
    assert await keys.find(where) is None
    made = await keys.make(where, algorithm, size)
    assert (made, made.version, made.exposed) == (await keys.find(where), 1, None)
    assert (key_algorithm(made.public_key) or "").startswith(algorithm)
    signer = Signer(pki.root(with_key=pki.key(algorithm, size)).certificate, absent(made.public_key))
    template = pki.leaf(not_after=pki.NOW + pki.DAY)
    entries = ListTemplate([encode_entry(5, pki.NOW, "superseded")], 9, pki.NOW, pki.NOW + pki.DAY)

    def leaf(key: PrivateKey) -> object:
        return sign_leaf(template, signer.with_key(key))

    def revoked(key: PrivateKey) -> object:
        return revocation_list(entries, signer.with_key(key))

    for build in (leaf, revoked):
        wanted = to_be_signed(build, made.public_key)
        assert completed(build, made.public_key, wanted, await keys.sign(pinned(where, 1), wanted))
    assert len(keys) == 1, "one login for all calls"


@pytest.mark.requirement("X56")
async def test_after_a_rotation_the_pinned_version_signs(keys: TransitKeys, openbao: OpenBao) -> None:
    where = location(openbao, openbao.mount("transit"))
    made = await keys.make(where, "ECDSA", 384)
    store = where.store.transit
    assert store is not None
    openbao.write(f"{store.mount_path}/keys/{store.key}/rotate")
    latest = await keys.find(where)
    assert latest is not None
    assert (latest.version, latest.public_key == made.public_key) == (2, False)
    assert await keys.find(pinned(where, 1)) == made
    verify(made.public_key, MESSAGE, await keys.sign(pinned(where, 1), MESSAGE))


@pytest.mark.requirement("X56")
@pytest.mark.parametrize("option", ["exportable", "allow_plaintext_backup", "deletion_allowed"])
async def test_a_key_that_can_leave_the_store_is_reported(keys: TransitKeys, openbao: OpenBao, option: str) -> None:
    where = location(openbao, openbao.mount("transit"))
    await keys.make(where, "ECDSA", 256)
    store = where.store.transit
    assert store is not None
    openbao.write(f"{store.mount_path}/keys/{store.key}/config", **{option: True})
    found = await keys.find(where)
    assert found is not None
    assert option in (found.exposed or "")


async def test_a_key_that_no_ca_can_have_is_refused(keys: TransitKeys, openbao: OpenBao) -> None:
    where = location(openbao, openbao.mount("transit"))
    store = where.store.transit
    assert store is not None
    openbao.write(f"{store.mount_path}/keys/{store.key}", type="aes256-gcm96")
    with pytest.raises(KeyStoreRefused, match="aes256-gcm96") as refused:
        await keys.find(where)
    assert refused.value.reason == "InvalidKey"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mount_path": "absent"}, "KeyStoreNotFound"),
        ({"key_version": 7}, "KeyLost"),
        ({"key": "absent"}, "InvalidKey"),
    ],
)
async def test_what_the_server_lacks_is_named(
    keys: TransitKeys, openbao: OpenBao, change: dict[str, object], reason: str
) -> None:
    mount = openbao.mount("transit")
    await keys.make(location(openbao, mount), "ECDSA", 256)
    where = location(openbao, **{"mount": mount, **change})  # type: ignore[arg-type]
    with pytest.raises(KeyStoreRefused) as refused:
        await (keys.sign(where, MESSAGE) if "key" in change else keys.find(where))
    assert refused.value.reason == reason


@pytest.mark.requirement("X48")
async def test_a_token_that_may_not_sign_is_refused_and_not_quoted(keys: TransitKeys, openbao: OpenBao) -> None:
    mount = openbao.mount("transit")
    await keys.make(location(openbao, mount), "ECDSA", 384)
    token = openbao.token(openbao.policy({f"{mount}/keys/issuing": ("read",)}))
    where = location(openbao, mount, token=token)
    assert await keys.find(where) is not None
    with pytest.raises(KeyStoreRefused) as refused:
        await keys.sign(where, MESSAGE)
    assert refused.value.reason == "PermissionDenied"
    assert token not in str(refused.value)


async def test_a_login_is_used_for_all_calls_and_a_refused_one_is_told(keys: TransitKeys, openbao: OpenBao) -> None:
    mount = openbao.mount("transit")
    role = openbao.app_role(limited(openbao, mount))
    reference = SecretKeyRef(name="openbao", key="secret-id")
    auth = VaultAuth(app_role=AppRoleAuth(role_id=role.role_id, mount_path=role.mount, secret_ref=reference))
    by_role = location(openbao, mount, auth=auth)
    credentials = {VAULT_ROLE_ID: role.role_id.encode(), VAULT_SECRET_ID: role.secret_id.encode()}
    where = KeyLocation.of(by_role.store, credentials)
    made = await keys.make(where, "ECDSA", 384)
    verify(made.public_key, MESSAGE, await keys.sign(where, MESSAGE))
    assert len(keys) == 1
    wrong = KeyLocation.of(by_role.store, {**credentials, VAULT_SECRET_ID: b"another-secret"})
    with pytest.raises(KeyStoreRefused) as refused:
        await keys.sign(wrong, MESSAGE)
    assert refused.value.reason == "AuthenticationFailed"
    assert "another-secret" not in str(refused.value)
    with pytest.raises(KeyStoreRefused, match="credentials"):
        await keys.sign(KeyLocation.of(by_role.store, {}), MESSAGE)


@pytest.mark.requirement("X6")
async def test_a_token_of_a_service_account_logs_in(keys: TransitKeys, openbao: OpenBao) -> None:
    mount = openbao.mount("transit")
    login = openbao.jwt_auth(limited(openbao, mount), bound_audiences=[openbao.url])
    account = LocalRef(name="issuer")
    auth = VaultAuth(kubernetes=KubernetesAuth(role="kms", mount_path=login.mount, service_account_ref=account))
    store = location(openbao, mount, auth=auth).store
    where = KeyLocation.of(store, {VAULT_JWT: login.token(openbao.url).encode()})
    made = await keys.make(where, "ECDSA", 384)
    renewed = KeyLocation.of(store, {VAULT_JWT: login.token(openbao.url, life=1800).encode()})
    verify(made.public_key, MESSAGE, await keys.sign(renewed, MESSAGE))


async def test_a_sealed_server_is_not_ready_and_goes_on_later(keys: TransitKeys, openbao: OpenBao) -> None:
    where = location(openbao, openbao.mount("transit"))
    made = await keys.make(where, "ECDSA", 384)
    openbao.seal()
    try:
        with pytest.raises(KeyStoreNotReady, match="503"):
            await keys.sign(where, MESSAGE)
    finally:
        openbao.unseal()
    verify(made.public_key, MESSAGE, await keys.sign(where, MESSAGE))


async def test_a_server_that_is_away_is_not_ready() -> None:
    keys = TransitKeys()
    store = TransitKeyStore(server="http://127.0.0.1:1", auth=TOKEN_AUTH, key="issuing")
    with pytest.raises(KeyStoreNotReady, match=r"127\.0\.0\.1:1"):
        await keys.find(KeyLocation.of(KeyStore(transit=store), {VAULT_TOKEN: b"t"}))
    await keys.close()


async def test_logins_that_nobody_uses_are_given_up(openbao: OpenBao) -> None:
    now = [0.0]
    keys, mount = TransitKeys(idle_seconds=60.0, monotonic=lambda: now[0]), openbao.mount("transit")
    for _ in range(3):
        assert await keys.find(location(openbao, mount, token=openbao.token(limited(openbao, mount)))) is None
        now[0] += 61
    assert len(keys) == 1
    await keys.close()
