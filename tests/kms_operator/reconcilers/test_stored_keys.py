"""Internal CAs whose key is in a key store: made once, used for everything, never replaced silently."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest
from cryptography import x509

from kms.issuers.key_stores import KeyStoreNotReady, KeyStoreRefused
from kms.issuers.stored_key import location_in
from kms.pki.ca import InvalidAuthority, load_remote_signer, renewal_time
from kms.pki.certificate import certificate_pem, certifies, sign
from kms.resources.authorities import CertificateAuthority, SecretKeyRef, VaultServer
from kms.resources.core import Secret
from kms.resources.meta import condition
from kms.resources.secret_names import COMPONENT, KEY_STORE, PIN, SIGNING_KEY, TLS_PRIVATE_KEY, VAULT_TOKEN
from kms_operator.answers import AnsweredPlans, Busy, Credentials
from kms_operator.plan import RESYNC, Plan
from kms_operator.questions import Choices, FindKey
from kms_operator.reconcilers import certificate_authority
from tests.support import pki
from tests.support.key_stores import Memory
from tests.support.operated import (
    DAY,
    NOW,
    SETTINGS,
    authority,
    entropy,
    objects,
    secret,
    snapshot_of,
    stated,
    stored,
)
from tests.support.softhsm import Token

MODULE = "/opt/hsm/lib.so"
ALLOWED = replace(SETTINGS, external_authorities_from=("pki",), pkcs11_modules=(MODULE,))
PKCS11 = {"pkcs11": {"module": MODULE, "token": "kms", "key": "ca", "pinSecretRef": {"name": "hsm", "key": "pin"}}}
AUTH = {"tokenSecretRef": {"name": "openbao", "key": "token"}}
TRANSIT = {"transit": {"server": "https://openbao.example.com:8200", "key": "ca", "auth": AUTH}}
CREDENTIALS = (secret("hsm", data={"pin": b"1234\n"}),)


async def vault_credentials(_: CertificateAuthority, server: VaultServer) -> dict[str, bytes]:
    """The token, as the operator reads it from the Secret that the CA names."""
    assert server.auth.token_secret_ref == SecretKeyRef(name="openbao", key="token")
    return {VAULT_TOKEN: b"t0k3n"}


async def no_certificates(_: object) -> bytes:
    raise AssertionError("no external CA is asked")


async def reconciled(
    memory: Memory,
    one: CertificateAuthority,
    *others: Any,
    now: datetime = NOW,
    settings: Any = ALLOWED,
    credentials: tuple[Secret, ...] = CREDENTIALS,
    get_credentials: Credentials = vault_credentials,
) -> Plan:
    """Plan as the controller does: once more with each answer."""
    return await AnsweredPlans(memory.stores, get_credentials, no_certificates).plan(
        certificate_authority.plan,
        one,
        snapshot_of(one, *credentials, *others, settings=settings),
        now=now,
        entropy=entropy(str(now)),
        group="pki",
    )


def ca(name: str = "ca", store: Any = PKCS11, *, status: Any = None, **internal: Any) -> CertificateAuthority:
    return authority(name, internal={"keyStore": store, **internal}, status=status)


async def standing(
    memory: Memory, name: str = "ca", *others: Any, store: Any = PKCS11, **internal: Any
) -> tuple[CertificateAuthority, Secret]:
    """A CA as it is after its first reconciliation, with its Secret."""
    plan = await reconciled(memory, ca(name, store, **internal), *others)
    return ca(name, store, status=msgspec.to_builtins(plan.status), **internal), stored(objects(plan.apply)[0])


def other_condition(plan: Plan, type_: str) -> Any:
    status: Any = plan.status
    return condition(status.conditions, type_)


@pytest.mark.requirement("X53", "X57")
@pytest.mark.parametrize("store", [PKCS11, TRANSIT], ids=["pkcs11", "transit"])
async def test_a_root_is_made_with_a_key_of_the_store(store: Any) -> None:
    memory = Memory(version=3 if store is TRANSIT else None)
    plan = await reconciled(memory, ca(store=store))
    (written,) = objects(plan.apply)
    status: Any = plan.status
    assert (stated(plan).reason, status.type, status.key_version) == ("Issued", "Root", memory.version)
    root = x509.load_pem_x509_certificate(status.certificate.encode())
    assert certifies(root, root)
    assert root.public_key() == memory.keys["ca"].public_key()
    assert (memory.made, memory.signed) == (1, 1)
    location = location_in(written.data)
    assert location is not None
    assert dict(location.credentials) == ({VAULT_TOKEN: b"t0k3n"} if store is TRANSIT else {PIN: b"1234\n"})
    assert location.store.transit is None or location.store.transit.key_version == 3
    assert (TLS_PRIVATE_KEY in written.data, written.metadata.labels[COMPONENT]) == (False, SIGNING_KEY)
    assert plan.requeue_at == NOW + RESYNC, "the store is looked at again"


@pytest.mark.requirement("SEC64", "X48")
async def test_no_credential_is_in_status_or_events() -> None:
    memory = Memory()
    plan = await reconciled(memory, ca())
    assert b"1234" not in msgspec.json.encode(plan.status)
    memory.refusal = KeyStoreRefused("AuthenticationFailed", "the token refuses the PIN")
    failed = await reconciled(memory, ca())
    assert b"1234" not in msgspec.json.encode(failed.status)
    assert "1234" not in repr(failed.events)


async def test_a_ca_that_stands_is_left_alone_but_looked_at() -> None:
    memory = Memory()
    one, key = await standing(memory)
    before = memory.signed
    plan = await reconciled(memory, one, key)
    assert (objects(plan.apply), plan.status, memory.signed, memory.made) == ((), one.status, before, 1)


async def test_a_crash_after_the_key_was_made_makes_no_second_one() -> None:
    memory = Memory()
    await reconciled(memory, ca())
    plan = await reconciled(memory, ca())
    assert (stated(plan).reason, memory.made) == ("Issued", 1)


@pytest.mark.parametrize("above", [PKCS11, None], ids=["store", "secret"])
@pytest.mark.parametrize("below", [PKCS11, None], ids=["store", "secret"])
async def test_an_intermediate_is_signed_wherever_the_two_keys_are(above: Any, below: Any) -> None:
    memory = Memory()
    root, root_key = await standing(
        memory, "root", store={"pkcs11": {**above["pkcs11"], "key": "root"}} if above else None
    )
    internal = {"issuerRef": {"name": "root"}}
    plan = await reconciled(memory, ca("below", below, **internal), root, root_key)
    status: Any = plan.status
    issued, issuer = x509.load_pem_x509_certificates(status.chain.encode())
    assert certifies(issuer, issued)
    assert (stated(plan).reason, status.type) == ("Issued", "Intermediate")
    assert (KEY_STORE in objects(plan.apply)[0].data) is (below is not None)


async def test_the_certificate_is_renewed_under_the_same_key() -> None:
    memory = Memory()
    one, key = await standing(memory, duration="240h")
    due = renewal_time(load_remote_signer(key.data["tls.crt"]).certificate)
    plan = await reconciled(memory, one, key, now=due)
    status: Any = plan.status
    assert (status.subject_key_id, status.serial_number == one.status.serial_number) == (
        one.status.subject_key_id,
        False,
    )
    assert [each.reason for each in plan.events] == ["Renewed"]


@pytest.mark.requirement("X58")
async def test_a_key_that_is_gone_is_never_made_again() -> None:
    memory = Memory()
    one, key = await standing(memory)
    memory.keys.clear()
    for others in ((key,), ()):
        plan = await reconciled(memory, one, *others)
        assert (stated(plan).reason, objects(plan.apply), memory.made) == ("KeyLost", (), 1)
    status: Any = plan.status
    assert status.certificate == one.status.certificate


@pytest.mark.requirement("X58")
async def test_another_key_than_that_of_the_certificate_signs_nothing() -> None:
    memory = Memory()
    one, key = await standing(memory)
    memory.keys["ca"] = pki.key("ECDSA", 256, "another")
    before = memory.signed
    for others in ((key,), ()):
        plan = await reconciled(memory, one, *others)
        assert (stated(plan).reason, objects(plan.apply), memory.signed) == ("KeyMismatch", (), before)


@pytest.mark.requirement("X54")
async def test_a_signature_of_another_key_is_not_used() -> None:
    memory = Memory({"ca": pki.key("ECDSA", 256, "shown")}, sign=lambda _: b"0" * 70)
    plan = await reconciled(memory, ca())
    assert (stated(plan).reason, objects(plan.apply)) == ("KeyMismatch", ())


@pytest.mark.requirement("X58")
async def test_a_lost_secret_is_written_again_since_the_key_is_elsewhere() -> None:
    memory = Memory()
    one, key = await standing(memory)
    plan = await reconciled(memory, one)
    (written,) = objects(plan.apply)
    assert (stated(plan).reason, written.data, memory.made) == ("Issued", key.data, 1)


async def test_a_key_that_does_not_fit_the_spec_is_not_used() -> None:
    memory = Memory({"ca": pki.key("ECDSA", 384, "other size")})
    plan = await reconciled(memory, ca())
    assert stated(plan).reason == "InvalidKey"
    assert "ECDSA-P384" in stated(plan).message


@pytest.mark.requirement("X56")
async def test_the_version_is_pinned_for_good() -> None:
    memory = Memory(version=1)
    one, key = await standing(memory, store=TRANSIT)
    memory.version = None
    located: list[Any] = []
    find = memory.find

    async def found(location: Any) -> Any:
        located.append(location.store.transit.key_version)
        return await find(location)

    memory.find = found  # type: ignore[method-assign]
    await reconciled(memory, one, key)
    await reconciled(memory, one)
    assert located == [1, 1], "from the Secret, and without it from the status"


@pytest.mark.requirement("X56")
async def test_a_key_that_can_leave_the_store_is_reported_and_used() -> None:
    memory = Memory(exposed="the key ca is not protected: it can be exported (exportable)")
    plan = await reconciled(memory, ca())
    protection = other_condition(plan, "KeyProtection")
    assert (protection.status, stated(plan).status) == ("False", "True")
    assert "exportable" in protection.message
    assert any(each.type == "Warning" for each in plan.events)


@pytest.mark.requirement("X11")
async def test_a_store_that_blinks_changes_nothing_and_one_that_is_away_does() -> None:
    memory = Memory()
    one, key = await standing(memory)
    memory.refusal = KeyStoreNotReady("connection refused")
    first = await reconciled(memory, one, key)
    assert (stated(first).status, other_condition(first, "KeyStore").reason) == ("True", "KeyStoreNotReady")
    assert first.requeue_at == NOW + RESYNC
    one = ca(status=msgspec.to_builtins(first.status))
    second = await reconciled(memory, one, key)
    assert (stated(second).status, stated(second).reason) == ("False", "KeyStoreNotReady")
    one = ca(status=msgspec.to_builtins(second.status))
    memory.refusal = None
    assert stated(await reconciled(memory, one, key)).status == "True"
    memory.refusal = KeyStoreRefused("PermissionDenied", "the token's policy must allow it")
    assert stated(await reconciled(memory, one, key)).reason == "PermissionDenied"


@pytest.mark.requirement("X2")
@pytest.mark.parametrize(
    ("settings", "reason", "option"),
    [
        (SETTINGS, "NamespaceNotAllowed", "--external-authorities-from pki (in the chart externalAuthorities.from)"),
        (replace(ALLOWED, pkcs11_modules=()), "ModuleNotAllowed", "--pkcs11-module"),
    ],
)
async def test_what_an_administrator_has_not_allowed_reaches_no_store(settings: Any, reason: str, option: str) -> None:
    memory = Memory()
    plan = await reconciled(memory, ca(), settings=settings)
    assert (stated(plan).reason, memory.credentials) == (reason, {})
    assert option in stated(plan).message


@pytest.mark.parametrize("credentials", [(), (secret("hsm", data={"other": b"1234"}),)], ids=["no Secret", "no key"])
async def test_a_missing_credential_is_named_with_the_command(credentials: tuple[Secret, ...]) -> None:
    plan = await reconciled(Memory(), ca(), credentials=credentials)
    assert stated(plan).reason == "SecretNotFound"
    assert "kubectl create secret generic hsm -n pki --from-file=pin=FILE" in stated(plan).message


@pytest.mark.requirement("X5")
async def test_a_changed_credential_is_copied() -> None:
    memory = Memory()
    one, key = await standing(memory)
    plan = await reconciled(memory, one, key, credentials=(secret("hsm", data={"pin": b"5678"}),))
    assert objects(plan.apply)[0].data[PIN] == b"5678"


async def test_a_ca_that_is_created_again_has_its_certificate_again() -> None:
    memory = Memory()
    one, key = await standing(memory)
    again = authority("ca", internal={"keyStore": PKCS11}, uid="another")
    plan = await reconciled(memory, again, key)
    status: Any = plan.status
    assert (status.certificate, memory.made) == (one.status.certificate, 1)
    assert [each.reason for each in plan.events] == ["Issued", "Protected", "Restored"]


async def test_a_secret_of_a_store_is_no_key_for_a_ca_without_one() -> None:
    memory = Memory()
    _, key = await standing(memory)
    again = authority("ca", uid="another")
    plan = await reconciled(memory, again, key)
    status: Any = plan.status
    assert stated(plan).reason == "Issued"
    assert status.certificate != key.data["tls.crt"].decode()


def test_choices_are_the_same_each_time() -> None:
    choices, drawn = Choices(), iter(range(9))
    first = [choices.once(lambda: next(drawn)) for _ in range(3)]
    choices.restart()
    assert [choices.once(lambda: next(drawn)) for _ in range(4)] == [*first, 3]


@pytest.mark.requirement("X53")
async def test_a_ca_by_request_has_its_key_in_the_store_and_signs_its_request_there() -> None:
    memory = Memory(version=2)
    plan = await reconciled(memory, ca(store=TRANSIT, signedBy="Request"))
    status: Any = plan.status
    (written,) = objects(plan.apply)
    request = x509.load_pem_x509_csr(status.request.encode())
    assert request.is_signature_valid
    assert request.public_key() == memory.keys["ca"].public_key()
    assert (stated(plan).reason, status.key_version) == ("WaitingForCertificate", 2)
    assert (KEY_STORE in written.data, TLS_PRIVATE_KEY in written.data) == (True, False)
    waiting, key = ca(store=TRANSIT, signedBy="Request", status=msgspec.to_builtins(status)), stored(written)
    before = memory.signed
    again = await reconciled(memory, waiting, key)
    assert (again.status, objects(again.apply), memory.signed) == (waiting.status, (), before)
    certified = ca(
        store=TRANSIT,
        signedBy="Request",
        certificate=answer_to(request),
        status=msgspec.to_builtins(status),
    )
    assert stated(await reconciled(memory, certified, key)).reason == "Issued"


def answer_to(request: x509.CertificateSigningRequest) -> str:
    """What a corporate root returns for the request, with the root."""
    above = pki.root(not_before=NOW - DAY, not_after=NOW + 3000 * DAY)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(above.certificate.subject)
        .public_key(request.public_key())
        .serial_number(77)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 1000 * DAY)
    )
    for each in request.extensions:
        builder = builder.add_extension(each.value, critical=each.critical)
    builder = builder.add_extension(above.authority_key_identifier, critical=False)
    return certificate_pem(sign(builder, above.key)) + certificate_pem(above.certificate)


@pytest.mark.requirement("X58")
async def test_a_lost_key_of_a_ca_by_request_is_not_made_again() -> None:
    memory = Memory()
    plan = await reconciled(memory, ca(signedBy="Request"))
    waiting, key = ca(signedBy="Request", status=msgspec.to_builtins(plan.status)), stored(objects(plan.apply)[0])
    memory.keys.clear()
    for others in ((key,), ()):
        assert stated(await reconciled(memory, waiting, *others)).reason == "KeyLost"
    restored = ca(signedBy="Request", certificate=certificate_pem(pki.root().certificate))
    assert stated(await reconciled(memory, restored)).reason == "KeyLost"
    assert memory.made == 1


@pytest.mark.requirement("X6")
async def test_a_token_that_the_operator_may_not_request_is_the_reason() -> None:
    async def forbidden(_: CertificateAuthority, __: VaultServer) -> dict[str, bytes]:
        raise InvalidAuthority("TokenForbidden", "the operator may not request tokens of ServiceAccount ca")

    memory = Memory()
    plan = await reconciled(memory, ca(store=TRANSIT), get_credentials=forbidden)
    assert (stated(plan).reason, memory.credentials, memory.made) == ("TokenForbidden", {}, 0)


async def test_a_plan_that_never_has_enough_answers_ends() -> None:
    asked: list[int] = []

    def endless(_: Any, snapshot: Any, **__: Any) -> Plan:
        asked.append(len(snapshot.answers))
        snapshot.ask(FindKey(Token(label=str(len(snapshot.answers))).location("ca")))
        for number in range(len(snapshot.answers)):
            snapshot.ask(FindKey(Token(label=str(number)).location("ca")))
        return Plan()

    plans = AnsweredPlans(Memory().stores, vault_credentials, no_certificates, maximum_questions=3)
    with pytest.raises(RuntimeError, match="more than 3"):
        await plans.plan(endless, None, snapshot_of(ca()), now=NOW, entropy=entropy(), group="pki")
    assert asked == [0, 1, 2, 3]


async def test_a_namespace_whose_store_is_slow_takes_one_worker_only() -> None:
    gate, memory = asyncio.Event(), Memory()
    find = memory.find

    async def slow(location: Any) -> Any:
        await gate.wait()
        return await find(location)

    memory.find = slow  # type: ignore[method-assign]
    plans = AnsweredPlans(memory.stores, vault_credentials, no_certificates)

    async def planned(group: str) -> Plan:
        snapshot = snapshot_of(ca(), *CREDENTIALS, settings=ALLOWED)
        return await plans.plan(certificate_authority.plan, ca(), snapshot, now=NOW, entropy=entropy(), group=group)

    first, other = asyncio.create_task(planned("pki")), asyncio.create_task(planned("shop"))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await planned("pki")
    gate.set()
    assert [stated(each).reason for each in await asyncio.gather(first, other)] == ["Issued", "Issued"]
    assert stated(await planned("pki")).reason == "Issued"
