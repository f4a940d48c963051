"""CertificateAuthorities: made once, renewed with the same key, never silently made again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509

from kms.pki.ca import load_signer, renewal_time, subject_key_id
from kms.pki.certificate import Signer, certificate_pem, certifies, sign
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.kinds import SECRETS
from kms.resources.secret_names import COMPONENT, OWNER, OWNER_UID, SIGNING_KEY, signing_key_name
from kms_operator.plan import REREAD, Plan
from kms_operator.reconcilers import certificate_authority
from kms_operator.snapshot import Read
from tests.support import pki
from tests.support.operated import (
    DAY,
    NOW,
    RELEASE,
    SETTINGS,
    authority,
    entropy,
    event_reasons,
    names,
    objects,
    pair,
    published,
    ready_status,
    secret,
    snapshot_of,
    stated,
    stored,
)


def reconciled(one: CertificateAuthority, *others: Any, now: Any = NOW) -> Plan:
    return certificate_authority.plan(one, snapshot_of(one, *others), now=now, entropy=entropy(str(now)))


def signing_authority(
    name: str = "issuing", *others: Any, internal: dict[str, Any] | None = None
) -> tuple[CertificateAuthority, Secret]:
    """A CA as it stands after its first reconciliation, with its key."""
    fresh = authority(name, internal=internal)
    plan = reconciled(fresh, *others)
    return authority(name, internal=internal, status=builtins(plan)), stored(objects(plan.apply)[0])


def builtins(plan: Plan) -> Any:
    return msgspec.to_builtins(plan.status)


def signer_in(one: Secret) -> Signer:
    return load_signer(one.data["tls.crt"], one.data["tls.key"])


def test_a_root_is_made_with_its_key_in_the_release_namespace() -> None:
    one = authority("root")
    plan = reconciled(one)
    (written,) = objects(plan.apply)
    assert names(objects(plan.apply)) == [f"{RELEASE}/{signing_key_name('uid-pki-root')}"]
    assert written.metadata.labels[COMPONENT] == SIGNING_KEY
    assert written.metadata.labels[OWNER_UID] == "uid-pki-root"
    assert written.metadata.annotations[OWNER] == "CertificateAuthority pki/root"
    assert written.metadata.resource_version == "", "it must not exist yet"
    status: Any = plan.status
    assert (status.type, status.subject) == ("Root", "CN=Test root")
    assert status.certificate == status.chain == written.data["tls.crt"].decode()
    assert status.not_after == NOW + timedelta(hours=87600)
    assert stated(plan).reason == "Issued"
    assert event_reasons(plan) == ["Issued"]
    assert plan.requeue_at == renewal_time(signer_in(written).certificate)


@pytest.mark.requirement("SEC59", "SEC64")
def test_the_key_is_in_no_status_and_no_notice() -> None:
    plan = reconciled(authority())
    body = objects(plan.apply)[0].data["tls.key"].decode().splitlines()[1]
    assert body not in repr(plan)


def test_a_ca_that_stands_is_left_alone() -> None:
    one, key = signing_authority()
    plan = reconciled(one, key)
    assert (objects(plan.apply), event_reasons(plan)) == ((), [])
    assert plan.status == one.status


def test_a_ca_whose_status_was_not_written_before_a_crash_is_published_as_it_is() -> None:
    _, key = signing_authority()
    plan = reconciled(authority(), key)
    status: Any = plan.status
    assert objects(plan.apply) == ()
    assert status.certificate == key.data["tls.crt"].decode()


def test_an_intermediate_is_signed_by_its_issuer_and_publishes_the_chain() -> None:
    root, root_key = signing_authority("root")
    plan = reconciled(authority(internal={"issuerRef": {"name": "root"}}), root, root_key)
    signer = signer_in(objects(plan.apply)[0])
    assert certifies(signer_in(root_key).certificate, signer.certificate)
    status: Any = plan.status
    assert status.type == "Intermediate"
    assert status.chain.count("BEGIN CERTIFICATE") == 2
    assert status.certificate.count("BEGIN CERTIFICATE") == 1
    assert status.not_after <= signer_in(root_key).not_after


def locations(certificate: x509.Certificate) -> list[str]:
    """The URLs of revocation list and issuer in the certificate."""
    found = []
    for each in certificate.extensions:
        if isinstance(each.value, x509.CRLDistributionPoints):
            found += [name.value for point in each.value for name in point.full_name or ()]
        if isinstance(each.value, x509.AuthorityInformationAccess):
            found += [description.access_location.value for description in each.value]
    return found


def without_locations(key: Secret, issuer: Signer) -> Secret:
    """The key with a certificate as earlier versions signed it: without the URLs of the CA above."""
    signer = signer_in(key)
    certificate = signer.certificate
    builder = (
        x509.CertificateBuilder()
        .issuer_name(certificate.issuer)
        .subject_name(certificate.subject)
        .public_key(signer.key.public_key())
        .serial_number(7)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    for each in certificate.extensions:
        if not isinstance(each.value, x509.CRLDistributionPoints | x509.AuthorityInformationAccess):
            builder = builder.add_extension(each.value, critical=each.critical)
    earlier = Signer(sign(builder, issuer.key), signer.key, (issuer.certificate, *issuer.issuers))
    return msgspec.structs.replace(key, data=pair(earlier))


@pytest.mark.requirement("SEC60")
def test_an_intermediate_names_the_list_and_the_certificate_of_the_ca_above() -> None:
    root, root_key = signing_authority("root")
    _, key = signing_authority("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    key_id = subject_key_id(signer_in(root_key).certificate)
    assert locations(signer_in(key).certificate) == [
        f"http://acme.example.com/crl/pki/root/{key_id}.crl",
        f"http://acme.example.com/ca/pki/root/{key_id}.crt",
    ]
    assert locations(signer_in(root_key).certificate) == []


def test_an_intermediate_of_an_earlier_version_gets_the_locations_with_its_renewal() -> None:
    root, root_key = signing_authority("root", internal={"duration": "876000h"})
    one, key = signing_authority("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    earlier = without_locations(key, signer_in(root_key))
    status = {**builtins(reconciled(one, key, root, root_key)), **published(signer_in(earlier))}
    known = authority("issuing", internal={"issuerRef": {"name": "root"}}, status=status)
    assert objects(reconciled(known, earlier, root, root_key).apply) == ()
    due = renewal_time(signer_in(earlier).certificate)
    (renewed,) = objects(reconciled(known, earlier, root, root_key, now=due).apply)
    assert len(locations(signer_in(renewed).certificate)) == 2


@pytest.mark.parametrize(
    ("names", "issuers", "cycle"),
    [
        (["a", "b"], {"a": "b", "b": "a"}, "a <- b <- a"),
        (["a", "b", "c"], {"a": "b", "b": "c", "c": "a"}, "a <- b <- c <- a"),
        (["below", "a", "b"], {"below": "a", "a": "b", "b": "a"}, "a <- b <- a"),
    ],
)
def test_a_cycle_of_issuers_is_named(names: list[str], issuers: dict[str, str], cycle: str) -> None:
    first, *others = (authority(name, internal={"issuerRef": {"name": issuers[name]}}) for name in names)
    ready = stated(reconciled(first, *others))
    assert (ready.status, ready.reason) == ("False", "IssuerCycle")
    assert f"in a cycle: {cycle}; delete one of them" in ready.message


def test_an_intermediate_waits_for_its_issuer() -> None:
    one = authority(internal={"issuerRef": {"name": "root"}})
    assert stated(reconciled(one)).reason == "IssuerNotFound"
    assert stated(reconciled(one, authority("root"))).reason == "IssuerNotReady"
    root, root_key = signing_authority("root")
    late = reconciled(one, root, root_key, now=NOW + 4000 * DAY)
    assert (stated(late).reason, objects(late.apply)) == ("IssuerNotReady", ())


def test_an_intermediate_that_stands_does_without_its_issuer_until_it_ends() -> None:
    root, root_key = signing_authority("root")
    one, key = signing_authority("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    assert stated(reconciled(one, key)).status == "True"
    assert stated(reconciled(one, key, now=NOW + 4000 * DAY)).reason == "IssuerNotFound"


@pytest.mark.requirement("SEC59")
@pytest.mark.parametrize("issuer", [None, {"issuerRef": {"name": "root"}}])
def test_the_certificate_is_renewed_with_the_same_key_at_two_thirds(issuer: dict[str, Any] | None) -> None:
    root, root_key = signing_authority("root", internal={"duration": "876000h"})
    one, key = signing_authority("issuing", root, root_key, internal=issuer)
    due = renewal_time(signer_in(key).certificate)
    assert objects(reconciled(one, key, root, root_key, now=due - DAY).apply) == ()
    plan = reconciled(one, key, root, root_key, now=due)
    (renewed,) = objects(plan.apply)
    assert renewed.data["tls.key"] == key.data["tls.key"]
    assert signer_in(renewed).not_after > signer_in(key).not_after
    assert signer_in(renewed).certificate.serial_number != signer_in(key).certificate.serial_number
    assert renewed.metadata.resource_version == key.metadata.resource_version
    assert event_reasons(plan) == ["Renewed"]


def test_a_renewal_that_would_gain_nothing_is_not_made() -> None:
    root, root_key = signing_authority("root", internal={"duration": "240h"})
    one, key = signing_authority("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    plan = reconciled(one, key, root, root_key, now=NOW + 9 * DAY)
    assert objects(plan.apply) == ()
    assert plan.requeue_at == signer_in(key).not_after


def test_an_intermediate_is_signed_again_when_its_issuer_is_renewed() -> None:
    root, root_key = signing_authority("root", internal={"duration": "2400h"})
    one, key = signing_authority("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    renewal = reconciled(root, root_key, now=NOW + 70 * DAY)
    root_key = stored(objects(renewal.apply)[0])
    plan = reconciled(one, key, root, root_key, now=NOW + 70 * DAY)
    (again,) = objects(plan.apply)
    assert signer_in(again).issuers == (signer_in(root_key).certificate,)
    assert again.data["tls.key"] == key.data["tls.key"]


def test_what_may_change_in_the_spec_is_signed_again_with_the_same_key() -> None:
    _, key = signing_authority()
    changed = authority(internal={"pathLength": 0})
    (again,) = objects(reconciled(changed, key).apply)
    constraints = signer_in(again).certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.path_length == 0
    assert again.data["tls.key"] == key.data["tls.key"]


@pytest.mark.requirement("SEC59")
def test_a_lost_key_is_never_replaced_silently() -> None:
    one, _ = signing_authority()
    plan = reconciled(one)
    assert (objects(plan.apply), stated(plan).reason) == ((), "KeyLost")
    assert "restore it from a backup" in stated(plan).message
    status: Any = plan.status
    assert status.certificate == one.status.certificate, (
        "what is known stays known, or the next look would make a new key"
    )
    assert plan.requeue_at == NOW + timedelta(seconds=60)


def test_a_damaged_key_is_a_lost_key() -> None:
    one, key = signing_authority()
    key.data["tls.key"] = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    plan = reconciled(one, key)
    assert (objects(plan.apply), stated(plan).reason) == ((), "KeyLost")


def test_another_key_in_its_place_is_noticed() -> None:
    one, _ = signing_authority()
    other = secret(signing_key_name(one.metadata.uid), RELEASE, data=pair(pki.root()))
    plan = reconciled(one, other)
    assert (objects(plan.apply), stated(plan).reason) == ((), "KeyMismatch")


def test_a_lost_certificate_comes_back_from_the_status() -> None:
    one, key = signing_authority()
    intact = key.data["tls.crt"]
    key.data["tls.crt"] = b"garbage"
    (again,) = objects(reconciled(one, key).apply)
    assert again.data["tls.crt"] == intact


def test_a_key_without_any_certificate_gets_one() -> None:
    _, key = signing_authority()
    del key.data["tls.crt"]
    (again,) = objects(reconciled(authority(), key).apply)
    assert again.data["tls.key"] == key.data["tls.key"]


def test_a_ca_that_its_issuer_cannot_extend_expires() -> None:
    root, root_key = signing_authority("root", internal={"duration": "24h"})
    one, key = signing_authority("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    gone = authority(
        "issuing", internal={"issuerRef": {"name": "root"}}, status=builtins(reconciled(one, key, root, root_key))
    )
    plan = reconciled(gone, key, root, root_key, now=NOW + 2 * DAY)
    assert stated(plan).reason == "IssuerNotReady"
    assert objects(plan.apply) == ()


@pytest.mark.parametrize(
    ("internal", "reason"),
    [
        ({"duration": "forever"}, "InvalidDuration"),
        ({"duration": "0s"}, "Expired"),
        ({"duration": "99999999999h"}, "InvalidDuration"),
        ({"nameConstraints": {"permitted": {"ipRanges": ["10.0.0.0/99"]}}}, "InvalidNameConstraints"),
        ({"subject": {"commonName": "x" * 100}}, "InvalidSpec"),
    ],
)
def test_what_no_certificate_can_say_is_refused(internal: dict[str, Any], reason: str) -> None:
    plan = reconciled(authority(internal=internal))
    assert (objects(plan.apply), stated(plan).reason) == ((), reason)


def test_an_issuer_without_room_below_refuses() -> None:
    root, root_key = signing_authority("root", internal={"pathLength": 0})
    plan = reconciled(authority(internal={"issuerRef": {"name": "root"}}), root, root_key)
    assert (objects(plan.apply), stated(plan).reason) == ((), "PathLengthExceeded")


def test_a_spec_that_says_nothing_is_refused() -> None:
    one = authority()
    empty = msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, internal=None))
    assert stated(reconciled(empty)).reason == "InvalidSpec"


def test_an_imported_ca_is_checked_and_its_key_copied() -> None:
    signer = pki.below(pki.root())
    plan = reconciled(authority(imported="corporate"), secret("corporate", data=pair(signer)))
    (copy,) = objects(plan.apply)
    assert pair(signer_in(copy)) == pair(signer)
    status: Any = plan.status
    assert (status.type, stated(plan).reason) == ("Imported", "Imported")
    assert status.chain.count("BEGIN CERTIFICATE") == 2
    assert plan.requeue_at == NOW + REREAD


def test_an_imported_ca_whose_secret_is_missing_says_how_to_make_it() -> None:
    plan = reconciled(authority(imported="corporate"))
    assert stated(plan).reason == "SecretNotFound"
    assert "kubectl create secret tls corporate -n pki" in stated(plan).message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "InvalidSecret"),
        ({**pair(pki.root()), "tls.key": pair(pki.below(pki.root()))["tls.key"]}, "KeyMismatch"),
        (pair(pki.root(not_before=NOW - 9 * DAY, not_after=NOW - DAY)), "Expired"),
    ],
)
def test_an_imported_ca_that_cannot_be_used_says_why(data: dict[str, bytes], reason: str) -> None:
    plan = reconciled(authority(imported="corporate"), secret("corporate", data=data))
    assert (objects(plan.apply), stated(plan).reason) == ((), reason)


def test_an_imported_ca_may_be_renewed_by_its_owner() -> None:
    old, new = pki.root(), pki.root(serial=9)
    one = authority(imported="corporate", status=published(old, **ready_status("Imported")))
    copy = stored(certificate_authority.signing_secret(one, old, SETTINGS))
    plan = reconciled(one, copy, secret("corporate", data=pair(new)))
    assert pair(signer_in(objects(plan.apply)[0])) == pair(new)
    assert event_reasons(plan) == ["Renewed"]


def test_the_controller_is_told_which_secrets_to_be_sure_of() -> None:
    own = Read(SECRETS, RELEASE, signing_key_name("uid-pki-issuing"))
    assert list(certificate_authority.reads(authority(), snapshot_of())) == [own]
    assert list(certificate_authority.reads(authority(imported="x"), snapshot_of())) == [own, Read(SECRETS, "pki", "x")]


def cross(signer: Signer, **changes: Any) -> str:
    """What another root certifies of the CA's key and name."""
    other = pki.root(common_name="Other Root", with_key=pki.key(which="other root"), not_after=NOW + 60 * DAY)
    values: dict[str, Any] = {"not_after": NOW + 20 * DAY, **changes}
    name = changes.pop("common_name", None) or signer.certificate.subject.rfc4514_string().removeprefix("CN=")
    certificate = pki.below(other, **{"with_key": signer.key, **values, "common_name": name}).certificate
    return certificate_pem(certificate)


def with_crosses(one: CertificateAuthority, *crosses: str) -> CertificateAuthority:
    return msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, cross_certificates=crosses))


@pytest.mark.requirement("S124")
def test_cross_certificates_that_hold_are_published() -> None:
    one, key = signing_authority()
    given = cross(signer_in(key))
    plan = reconciled(with_crosses(one, given), key)
    status: Any = plan.status
    assert status.alternate_chains == (given,)
    assert (stated(plan).status, stated(plan, "AlternateChains").status) == ("True", "True")
    assert event_reasons(plan) == ["Published"]
    assert plan.requeue_at == NOW + 20 * DAY, "when the first of them ends it must go"


@pytest.mark.requirement("S124")
def test_a_cross_certificate_that_does_not_hold_is_told_and_keeps_nobody_from_work() -> None:
    one, key = signing_authority()
    good, bad = cross(signer_in(key)), cross(signer_in(key), with_key=pki.key(which="stranger"))
    plan = reconciled(with_crosses(one, bad, good), key)
    status: Any = plan.status
    assert status.alternate_chains == (good,)
    assert stated(plan).status == "True"
    told_of = stated(plan, "AlternateChains")
    assert (told_of.status, told_of.reason) == ("False", "InvalidCrossCertificate")
    assert told_of.message.startswith("spec.crossCertificates[0]: ")
    assert "not for the key of this CA" in told_of.message


def test_a_cross_certificate_goes_when_it_has_ended() -> None:
    one, key = signing_authority()
    given = cross(signer_in(key))
    plan = reconciled(with_crosses(one, given), key, now=NOW + 21 * DAY)
    status: Any = plan.status
    assert status.alternate_chains == ()
    assert "has expired" in stated(plan, "AlternateChains").message


def test_without_cross_certificates_nothing_is_said_of_them() -> None:
    one, key = signing_authority()
    status: Any = reconciled(one, key).status
    assert [each.type for each in status.conditions] == ["Ready"]


def test_an_imported_ca_that_may_not_sign_lists_works_and_says_so() -> None:
    signer = pki.without_list_signing()
    one = authority("imported", imported="corporate")
    plan = reconciled(one, secret("corporate", data=pair(signer)))
    assert stated(plan).status == "True"
    told_of = stated(plan, "RevocationList")
    assert (told_of.status, told_of.reason) == ("False", "KeyUsage")
    assert "cRLSign" in told_of.message


def imported_with(signer: Signer, status: Any) -> Plan:
    one = authority(imported="corporate", status=status)
    return reconciled(one, secret("corporate", data=pair(signer)))


@pytest.mark.requirement("SEC79")
def test_an_imported_ca_that_gets_another_key_remembers_the_former_one_until_its_end() -> None:
    first, second = (pki.root(with_key=pki.key(which=each)) for each in ("first", "second"))
    begun = imported_with(first, None)
    assert begun.status is not None
    assert begun.status.former_keys == ()  # type: ignore[attr-defined]
    changed: Any = imported_with(second, builtins(begun)).status
    (former,) = changed.former_keys
    assert former.subject_key_id == subject_key_id(first.certificate)
    assert former.not_after == first.not_after
    again: Any = imported_with(second, msgspec.to_builtins(changed)).status
    assert again.former_keys == changed.former_keys, "it stays"
    back: Any = imported_with(first, msgspec.to_builtins(changed)).status
    assert [each.subject_key_id for each in back.former_keys] == [subject_key_id(second.certificate)]
    one = authority(imported="corporate", status=msgspec.to_builtins(changed))
    late = first.not_after + 2 * DAY
    third = pki.root(with_key=pki.key(which="second"), not_after=late + 30 * DAY)
    ended: Any = reconciled(one, secret("corporate", data=pair(third)), now=late).status
    assert ended.former_keys == ()


@pytest.mark.requirement("SEC79")
def test_a_ca_whose_certificate_is_renewed_has_no_former_key() -> None:
    one, key = signing_authority()
    plan = reconciled(one, key, now=NOW + 365 * 8 * DAY)
    status: Any = plan.status
    assert "Renewed" in event_reasons(plan)
    assert status.former_keys == ()


@pytest.mark.requirement("SEC79", "SEC80")
def test_an_imported_ca_that_is_created_again_knows_the_keys_of_the_deleted_one() -> None:
    first, second, third = (pki.root(with_key=pki.key(which=each)) for each in ("first", "second", "third"))
    begun = imported_with(first, None)
    changed = imported_with(second, builtins(begun))
    (kept,) = (stored(each) for each in objects(changed.apply))
    again = authority(imported="corporate", uid="another")
    for signer in (second, third):
        plan = reconciled(again, secret("corporate", data=pair(signer)), kept)
        status: Any = plan.status
        former = {subject_key_id(each.certificate) for each in (first, second, third) if each is not signer}
        former.discard("" if signer is third else subject_key_id(third.certificate))
        assert {each.subject_key_id for each in status.former_keys} == former
        assert "Ready" in {each.type for each in status.conditions}
        assert "another CA" not in stated(plan).message


def test_name_constraints_that_make_a_certificate_too_large_for_the_status_are_told() -> None:
    domains = [f"{number:03}.{'.'.join(['x' * 60] * 4)}" for number in range(100)]
    plan = reconciled(authority(internal={"nameConstraints": {"permitted": {"dnsDomains": domains}}}))
    assert (stated(plan).reason, objects(plan.apply)) == ("InvalidNameConstraints", ())
    assert "spec.internal.nameConstraints makes a certificate of more than 32768 octets" in stated(plan).message
