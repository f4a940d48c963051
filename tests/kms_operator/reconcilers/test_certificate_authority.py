"""CertificateAuthorities: made once, renewed with the same key, never silently made again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509

from kms.pki.ca import load_signer, renewal_time
from kms.pki.certificate import Signer, certificate_pem, certifies
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.secret_names import COMPONENT, OWNER, OWNER_UID, SIGNING_KEY, signing_key_name
from kms_operator.plan import Outcome
from kms_operator.reconcilers import certificate_authority
from tests.support import pki
from tests.support.operated import (
    DAY,
    NOW,
    RELEASE,
    SETTINGS,
    authority,
    entropy,
    names,
    pair,
    published,
    ready_status,
    secret,
    snapshot_of,
    stated,
    stored,
    told,
)


def reconciled(one: CertificateAuthority, *others: Any, now: Any = NOW) -> Outcome:
    return certificate_authority.reconcile(one, snapshot_of(one, *others), now=now, entropy=entropy(str(now)))


def made(
    name: str = "issuing", *others: Any, internal: dict[str, Any] | None = None
) -> tuple[CertificateAuthority, Secret]:
    """A CA as it stands after its first reconciliation, with its key."""
    fresh = authority(name, internal=internal)
    outcome = reconciled(fresh, *others)
    return authority(name, internal=internal, status=builtins(outcome)), stored(outcome.apply[0])


def builtins(outcome: Outcome) -> Any:
    return msgspec.to_builtins(outcome.status)


def signer_in(one: Secret) -> Signer:
    return load_signer(one.data["tls.crt"], one.data["tls.key"])


def test_a_root_is_made_with_its_key_in_the_release_namespace() -> None:
    one = authority("root")
    outcome = reconciled(one)
    (written,) = outcome.apply
    assert names(outcome.apply) == [f"{RELEASE}/{signing_key_name('uid-pki-root')}"]
    assert written.metadata.labels[COMPONENT] == SIGNING_KEY
    assert written.metadata.labels[OWNER_UID] == "uid-pki-root"
    assert written.metadata.annotations[OWNER] == "CertificateAuthority pki/root"
    assert written.metadata.resource_version == "", "it must not exist yet"
    status: Any = outcome.status
    assert (status.type, status.subject) == ("Root", "CN=Test root")
    assert status.certificate == status.chain == written.data["tls.crt"].decode()
    assert status.not_after == NOW + timedelta(hours=87600)
    assert stated(outcome).reason == "Issued"
    assert told(outcome) == ["Issued"]
    assert outcome.again == renewal_time(signer_in(written).certificate)


@pytest.mark.requirement("SEC59", "SEC64")
def test_the_key_is_in_no_status_and_no_notice() -> None:
    outcome = reconciled(authority())
    body = outcome.apply[0].data["tls.key"].decode().splitlines()[1]
    assert body not in repr(outcome)


def test_a_ca_that_stands_is_left_alone() -> None:
    one, key = made()
    outcome = reconciled(one, key)
    assert (outcome.apply, told(outcome)) == ((), [])
    assert outcome.status == one.status


def test_a_ca_whose_status_was_not_written_before_a_crash_is_published_as_it_is() -> None:
    _, key = made()
    outcome = reconciled(authority(), key)
    status: Any = outcome.status
    assert outcome.apply == ()
    assert status.certificate == key.data["tls.crt"].decode()


def test_an_intermediate_is_signed_by_its_issuer_and_publishes_the_chain() -> None:
    root, root_key = made("root")
    outcome = reconciled(authority(internal={"issuerRef": {"name": "root"}}), root, root_key)
    signer = signer_in(outcome.apply[0])
    assert certifies(signer_in(root_key).certificate, signer.certificate)
    status: Any = outcome.status
    assert status.type == "Intermediate"
    assert status.chain.count("BEGIN CERTIFICATE") == 2
    assert status.certificate.count("BEGIN CERTIFICATE") == 1
    assert status.not_after <= signer_in(root_key).not_after


def test_an_intermediate_waits_for_its_issuer() -> None:
    one = authority(internal={"issuerRef": {"name": "root"}})
    assert stated(reconciled(one)).reason == "IssuerNotFound"
    assert stated(reconciled(one, authority("root"))).reason == "IssuerNotReady"
    root, root_key = made("root")
    late = reconciled(one, root, root_key, now=NOW + 4000 * DAY)
    assert (stated(late).reason, late.apply) == ("IssuerNotReady", ())


def test_an_intermediate_that_stands_does_without_its_issuer_until_it_ends() -> None:
    root, root_key = made("root")
    one, key = made("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    assert stated(reconciled(one, key)).status == "True"
    assert stated(reconciled(one, key, now=NOW + 4000 * DAY)).reason == "IssuerNotFound"


@pytest.mark.requirement("SEC59")
@pytest.mark.parametrize("issuer", [None, {"issuerRef": {"name": "root"}}])
def test_the_certificate_is_renewed_with_the_same_key_at_two_thirds(issuer: dict[str, Any] | None) -> None:
    root, root_key = made("root", internal={"duration": "876000h"})
    one, key = made("issuing", root, root_key, internal=issuer)
    due = renewal_time(signer_in(key).certificate)
    assert reconciled(one, key, root, root_key, now=due - DAY).apply == ()
    outcome = reconciled(one, key, root, root_key, now=due)
    (renewed,) = outcome.apply
    assert renewed.data["tls.key"] == key.data["tls.key"]
    assert signer_in(renewed).not_after > signer_in(key).not_after
    assert signer_in(renewed).certificate.serial_number != signer_in(key).certificate.serial_number
    assert renewed.metadata.resource_version == key.metadata.resource_version
    assert told(outcome) == ["Renewed"]


def test_a_renewal_that_would_gain_nothing_is_not_made() -> None:
    root, root_key = made("root", internal={"duration": "240h"})
    one, key = made("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    outcome = reconciled(one, key, root, root_key, now=NOW + 9 * DAY)
    assert outcome.apply == ()
    assert outcome.again == signer_in(key).not_after


def test_an_intermediate_is_signed_again_when_its_issuer_is_renewed() -> None:
    root, root_key = made("root", internal={"duration": "2400h"})
    one, key = made("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    renewal = reconciled(root, root_key, now=NOW + 70 * DAY)
    root_key = stored(renewal.apply[0])
    outcome = reconciled(one, key, root, root_key, now=NOW + 70 * DAY)
    (again,) = outcome.apply
    assert signer_in(again).issuers == (signer_in(root_key).certificate,)
    assert again.data["tls.key"] == key.data["tls.key"]


def test_what_may_change_in_the_spec_is_signed_again_with_the_same_key() -> None:
    _, key = made()
    changed = authority(internal={"pathLength": 0})
    (again,) = reconciled(changed, key).apply
    constraints = signer_in(again).certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.path_length == 0
    assert again.data["tls.key"] == key.data["tls.key"]


@pytest.mark.requirement("SEC59")
def test_a_lost_key_is_never_replaced_silently() -> None:
    one, _ = made()
    outcome = reconciled(one)
    assert (outcome.apply, stated(outcome).reason) == ((), "KeyLost")
    assert "restore it from a backup" in stated(outcome).message
    status: Any = outcome.status
    assert status.certificate == one.status.certificate, (
        "what is known stays known, or the next look would make a new key"
    )
    assert outcome.again == NOW + timedelta(seconds=60)


def test_a_damaged_key_is_a_lost_key() -> None:
    one, key = made()
    key.data["tls.key"] = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    outcome = reconciled(one, key)
    assert (outcome.apply, stated(outcome).reason) == ((), "KeyLost")


def test_another_key_in_its_place_is_noticed() -> None:
    one, _ = made()
    other = secret(signing_key_name(one.metadata.uid), RELEASE, data=pair(pki.root()))
    outcome = reconciled(one, other)
    assert (outcome.apply, stated(outcome).reason) == ((), "KeyMismatch")


def test_a_lost_certificate_comes_back_from_the_status() -> None:
    one, key = made()
    intact = key.data["tls.crt"]
    key.data["tls.crt"] = b"garbage"
    (again,) = reconciled(one, key).apply
    assert again.data["tls.crt"] == intact


def test_a_key_without_any_certificate_gets_one() -> None:
    _, key = made()
    del key.data["tls.crt"]
    (again,) = reconciled(authority(), key).apply
    assert again.data["tls.key"] == key.data["tls.key"]


def test_a_ca_that_its_issuer_cannot_extend_expires() -> None:
    root, root_key = made("root", internal={"duration": "24h"})
    one, key = made("issuing", root, root_key, internal={"issuerRef": {"name": "root"}})
    gone = authority(
        "issuing", internal={"issuerRef": {"name": "root"}}, status=builtins(reconciled(one, key, root, root_key))
    )
    outcome = reconciled(gone, key, root, root_key, now=NOW + 2 * DAY)
    assert stated(outcome).reason == "IssuerNotReady"
    assert outcome.apply == ()


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
    outcome = reconciled(authority(internal=internal))
    assert (outcome.apply, stated(outcome).reason) == ((), reason)


def test_an_issuer_without_room_below_refuses() -> None:
    root, root_key = made("root", internal={"pathLength": 0})
    outcome = reconciled(authority(internal={"issuerRef": {"name": "root"}}), root, root_key)
    assert (outcome.apply, stated(outcome).reason) == ((), "PathLengthExceeded")


def test_a_spec_that_says_nothing_is_refused() -> None:
    one = authority()
    empty = msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, internal=None))
    assert stated(reconciled(empty)).reason == "InvalidSpec"


def test_an_imported_ca_is_checked_and_its_key_copied() -> None:
    signer = pki.below(pki.root())
    outcome = reconciled(authority(imported="corporate"), secret("corporate", data=pair(signer)))
    (copy,) = outcome.apply
    assert pair(signer_in(copy)) == pair(signer)
    status: Any = outcome.status
    assert (status.type, stated(outcome).reason) == ("Imported", "Imported")
    assert status.chain.count("BEGIN CERTIFICATE") == 2
    assert outcome.again == NOW + timedelta(seconds=60)


def test_an_imported_ca_whose_secret_is_missing_says_how_to_make_it() -> None:
    outcome = reconciled(authority(imported="corporate"))
    assert stated(outcome).reason == "SecretNotFound"
    assert "kubectl create secret tls corporate -n pki" in stated(outcome).message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "InvalidSecret"),
        ({**pair(pki.root()), "tls.key": pair(pki.below(pki.root()))["tls.key"]}, "KeyMismatch"),
        (pair(pki.root(not_before=NOW - 9 * DAY, not_after=NOW - DAY)), "Expired"),
    ],
)
def test_an_imported_ca_that_cannot_be_used_says_why(data: dict[str, bytes], reason: str) -> None:
    outcome = reconciled(authority(imported="corporate"), secret("corporate", data=data))
    assert (outcome.apply, stated(outcome).reason) == ((), reason)


def test_an_imported_ca_may_be_renewed_by_its_owner() -> None:
    old, new = pki.root(), pki.root(serial=9)
    one = authority(imported="corporate", status=published(old, **ready_status("Imported")))
    copy = stored(certificate_authority.signing_secret(one, old, SETTINGS))
    outcome = reconciled(one, copy, secret("corporate", data=pair(new)))
    assert pair(signer_in(outcome.apply[0])) == pair(new)
    assert told(outcome) == ["Renewed"]


def test_the_controller_is_told_which_secrets_to_be_sure_of() -> None:
    own = (RELEASE, signing_key_name("uid-pki-issuing"))
    assert list(certificate_authority.secrets(authority(), SETTINGS)) == [own]
    assert list(certificate_authority.secrets(authority(imported="x"), SETTINGS)) == [own, ("pki", "x")]


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
    one, key = made()
    given = cross(signer_in(key))
    outcome = reconciled(with_crosses(one, given), key)
    status: Any = outcome.status
    assert status.alternate_chains == (given,)
    assert (stated(outcome).status, stated(outcome, "AlternateChains").status) == ("True", "True")
    assert told(outcome) == ["Published"]
    assert outcome.again == NOW + 20 * DAY, "when the first of them ends it must go"


@pytest.mark.requirement("S124")
def test_a_cross_certificate_that_does_not_hold_is_told_and_keeps_nobody_from_work() -> None:
    one, key = made()
    good, bad = cross(signer_in(key)), cross(signer_in(key), with_key=pki.key(which="stranger"))
    outcome = reconciled(with_crosses(one, bad, good), key)
    status: Any = outcome.status
    assert status.alternate_chains == (good,)
    assert stated(outcome).status == "True"
    told_of = stated(outcome, "AlternateChains")
    assert (told_of.status, told_of.reason) == ("False", "InvalidCrossCertificate")
    assert told_of.message.startswith("spec.crossCertificates[0]: ")
    assert "not for the key of this CA" in told_of.message


def test_a_cross_certificate_goes_when_it_has_ended() -> None:
    one, key = made()
    given = cross(signer_in(key))
    outcome = reconciled(with_crosses(one, given), key, now=NOW + 21 * DAY)
    status: Any = outcome.status
    assert status.alternate_chains == ()
    assert "has expired" in stated(outcome, "AlternateChains").message


def test_without_cross_certificates_nothing_is_said_of_them() -> None:
    one, key = made()
    status: Any = reconciled(one, key).status
    assert [each.type for each in status.conditions] == ["Ready"]


def test_an_imported_ca_that_may_not_sign_lists_works_and_says_so() -> None:
    signer = pki.without_list_signing()
    one = authority("imported", imported="corporate")
    outcome = reconciled(one, secret("corporate", data=pair(signer)))
    assert stated(outcome).status == "True"
    told_of = stated(outcome, "RevocationList")
    assert (told_of.status, told_of.reason) == ("False", "KeyUsage")
    assert "cRLSign" in told_of.message
