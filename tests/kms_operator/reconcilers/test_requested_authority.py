"""CAs that a CA elsewhere certifies by request: `spec.internal.signedBy: Request`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509

from kms.pki.ca import NameConstraints, load_signer, request_key
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.constraints import constraint_violations, constraints_of
from kms.pki.keys import generate_key, load_private_key, private_key_pem
from kms.pki.names import dns_name
from kms.resources.authorities import CertificateAuthority, Trust, TrustConfigMap
from kms.resources.core import Secret
from kms.resources.kept import DELETED_AT, KEPT_UNTIL, format_time
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_authority, trust_distribution
from tests.support import pki
from tests.support.corporate_ca import certify
from tests.support.operated import DAY, NOW, authority, entropy, event_reasons, objects, snapshot_of, stated, stored

ROOT = pki.root(common_name="Corporate Root", not_after=NOW + 3650 * DAY)
OTHER_ROOT = pki.root(common_name="New Root", with_key=pki.key(which="new root"), not_after=NOW + 3650 * DAY)
DUE = NOW - DAY + 60 * DAY


class Ceremony:
    """A CertificateAuthority, its Secret, and a clock, from one reconciliation to the next."""

    def __init__(self, **internal: Any) -> None:
        self.internal: dict[str, Any] = {"signedBy": "Request", **internal}
        self.status: Any = {}
        self.secrets: list[Secret] = []
        self.uid = "uid-1"
        self.now = NOW
        self.plan: Plan

    @property
    def authority(self) -> CertificateAuthority:
        return authority("issuing", internal=self.internal, status=self.status, uid=self.uid)

    def reconcile(self, *, now: datetime | None = None, **internal: Any) -> Plan:
        """Reconcile after these changes to the spec; None removes a field."""
        self.now = now or self.now
        self.internal = {key: each for key, each in {**self.internal, **internal}.items() if each is not None}
        snapshot = snapshot_of(self.authority, *self.secrets)
        self.plan = certificate_authority.plan(self.authority, snapshot, now=self.now, entropy=entropy())
        written = {each.metadata.name: stored(each) for each in objects(self.plan.apply)}
        gone = {each.metadata.name for each in objects(self.plan.delete)}
        kept = [each for each in self.secrets if each.metadata.name not in {*written, *gone}]
        self.secrets = [*kept, *written.values()]
        self.status = msgspec.to_builtins(self.plan.status)
        return self.plan

    def recreate(self, **internal: Any) -> Plan:
        """Delete the object, and create it again with these changes."""
        (secret,) = self.secrets
        times = {DELETED_AT: format_time(self.now), KEPT_UNTIL: format_time(self.now + 7 * DAY)}
        metadata = msgspec.structs.replace(secret.metadata, annotations={**secret.metadata.annotations, **times})
        self.secrets = [msgspec.structs.replace(secret, metadata=metadata)]
        self.uid, self.status = "uid-2", {}
        return self.reconcile(**internal)

    def answer(self, signer: Signer = ROOT, **more: Any) -> str:
        return certify(self.request, signer, **more)

    @property
    def request(self) -> str:
        request: str = self.status["request"]
        return request

    @property
    def key(self) -> bytes:
        return self.secrets[0].data["tls.key"]


def certified(**internal: Any) -> Ceremony:
    """A CA after its ceremony."""
    made = Ceremony(**internal)
    made.reconcile()
    made.reconcile(certificate=made.answer())
    assert stated(made.plan).status == "True"
    return made


def condition_types(plan: Plan) -> set[str]:
    status: Any = plan.status
    return {each.type for each in status.conditions}


@pytest.mark.requirement("X51")
def test_a_key_is_made_and_its_request_published() -> None:
    made = Ceremony(pathLength=0)
    plan = made.reconcile()
    (secret,) = objects(plan.apply)
    assert secret.data.keys() == {"tls.key", "ca.csr"}
    assert secret.data["ca.csr"].decode() == made.request
    ready = stated(plan)
    assert (ready.status, ready.reason) == ("False", "WaitingForCertificate")
    assert "`kms-acme ca request pki/issuing` prints the request" in ready.message
    assert "`kms-acme ca install pki/issuing FILE` installs the answer" in ready.message
    assert event_reasons(plan) == ["WaitingForCertificate"]
    status: Any = plan.status
    assert (status.type, status.certificate, status.chain) == ("Intermediate", None, None)
    subject, key = request_key(made.request) or (None, None)
    assert subject == x509.Name.from_rfc4514_string("CN=Test issuing")
    assert key == load_private_key(secret.data["tls.key"]).public_key()
    assert secret.data["tls.key"].decode().splitlines()[1] not in repr(plan)


def test_a_ca_that_waits_is_left_alone() -> None:
    made = Ceremony()
    made.reconcile()
    request, key = made.request, made.key
    plan = made.reconcile(now=NOW + DAY)
    assert (objects(plan.apply), event_reasons(plan), plan.requeue_at) == ((), [], None)
    assert (made.request, made.key) == (request, key)


@pytest.mark.requirement("X51")
def test_the_answer_makes_the_ca_ready() -> None:
    made = Ceremony()
    made.reconcile()
    answer = made.answer()
    plan = made.reconcile(certificate=f"subject=CN = a\n{answer}")
    assert (stated(plan).reason, event_reasons(plan)) == ("Issued", ["Issued"])
    signer = load_signer(made.secrets[0].data["tls.crt"], made.key)
    status: Any = plan.status
    assert status.chain == answer == made.secrets[0].data["tls.crt"].decode()
    assert status.certificate == certificate_pem(signer.certificate)
    assert status.request == made.request, "it is there for the renewal"
    assert plan.requeue_at == DUE
    assert made.reconcile().apply == ()


@pytest.mark.requirement("X51")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"not_after": NOW}, "Expired"),
        ({"not_before": NOW + timedelta(hours=1)}, "NotYetValid"),
        ({"leave_out": [x509.BasicConstraints]}, "NotACertificateAuthority"),
        ({"leave_out": [x509.NameConstraints]}, "ConstraintsMissing"),
    ],
)
def test_a_first_certificate_that_cannot_be_used_is_not_taken(how: dict[str, Any], reason: str) -> None:
    made = Ceremony(nameConstraints={"permitted": {"dnsDomains": ["example.com"]}})
    made.reconcile()
    plan = made.reconcile(certificate=made.answer(**how))
    ready = stated(plan)
    assert (ready.status, ready.reason) == ("False", reason)
    assert ready.message.startswith("spec.internal.certificate cannot be used: ")
    assert (objects(plan.apply), made.status.get("chain")) == ((), None)
    assert (plan.requeue_at is not None) == (reason == "NotYetValid"), "it becomes valid by itself"
    assert stated(made.reconcile(certificate=made.answer())).status == "True"


def test_a_certificate_for_the_request_of_another_ca_is_not_taken() -> None:
    made, other = Ceremony(), Ceremony()
    made.reconcile()
    other.reconcile()
    assert stated(made.reconcile(certificate=other.answer())).reason == "KeyMismatch"


@pytest.mark.requirement("X51")
@pytest.mark.parametrize(
    ("replacement", "reason"),
    [("not a certificate -----BEGIN CERTIFICATE-----", "InvalidCertificate"), ("foreign", "KeyMismatch")],
)
def test_a_bad_replacement_does_not_stop_the_ca(replacement: str, reason: str) -> None:
    made = certified()
    before = made.status["chain"]
    if replacement == "foreign":
        other = Ceremony()
        other.reconcile()
        replacement = other.answer()
    plan = made.reconcile(certificate=replacement)
    assert (stated(plan).status, made.status["chain"]) == ("True", before)
    told = stated(plan, "Reconciled")
    assert (told.status, told.reason) == ("False", reason)
    assert told.message.endswith("; the CA goes on with its former certificate")
    assert event_reasons(plan) == [reason]
    plan = made.reconcile(now=NOW + 89 * DAY)
    assert (stated(plan).status, stated(plan).reason) == ("False", reason), "the former one has ended"
    plan = made.reconcile(certificate=made.answer(not_before=made.now, not_after=made.now + DAY))
    assert (stated(plan).status, "Reconciled" in condition_types(plan)) == ("True", False)


def test_a_certificate_that_is_removed_from_the_spec_stays_in_use_until_it_ends() -> None:
    made = certified()
    before = made.status["chain"]
    plan = made.reconcile(certificate=None)
    assert (stated(plan).status, made.status["chain"], objects(plan.apply)) == ("True", before, ())
    plan = made.reconcile(now=NOW + 89 * DAY)
    assert (stated(plan).status, stated(plan).reason) == ("False", "Expired")
    assert "tls.crt" in made.secrets[0].data, "it is still known what the key was"


@pytest.mark.requirement("X51")
def test_the_renewal_is_due_after_two_thirds_and_takes_the_same_key() -> None:
    made = certified()
    request, key = made.request, made.key
    assert "RenewalDue" not in condition_types(made.plan)
    plan = made.reconcile(now=DUE)
    due = stated(plan, "RenewalDue")
    assert (due.status, stated(plan).status, made.request) == ("True", "True", request)
    assert "`kms-acme ca request pki/issuing`" in due.message
    assert [(each.reason, each.type) for each in plan.events] == [("CertificateEnds", "Warning")]
    assert plan.requeue_at == NOW + 89 * DAY
    plan = made.reconcile(certificate=made.answer(serial=78, not_before=DUE, not_after=DUE + 90 * DAY))
    assert ("RenewalDue" in condition_types(plan), event_reasons(plan)) == (False, ["Renewed"])
    assert made.key == key
    assert "formerKeys" not in made.status


@pytest.mark.requirement("X51")
def test_another_root_is_published_beside_the_former_one() -> None:
    made = certified()
    plan = made.reconcile(certificate=made.answer(OTHER_ROOT))
    assert [(each.reason, each.type) for each in plan.events] == [("Renewed", "Normal"), ("RootChanged", "Warning")]
    assert '"CN=New Root" takes the place of "CN=Corporate Root"' in plan.events[1].message
    (former,) = made.status["formerRoots"]
    assert former["certificate"] == certificate_pem(ROOT.certificate)
    one = authority("issuing", internal=made.internal, status=made.status, trust={"configMap": {"name": "roots"}})
    published = trust_distribution.plan(one, snapshot_of(one), now=NOW, entropy=entropy())
    (config_map,) = objects(published.apply)
    assert config_map.data["ca.crt"] == certificate_pem(OTHER_ROOT.certificate) + certificate_pem(ROOT.certificate)


def test_a_former_root_outlives_its_status_and_the_resource() -> None:
    """The status can be lost: by kubectl edit, or by a restore without it. Clients still need the root."""
    made = certified()
    made.reconcile(certificate=made.answer(OTHER_ROOT))
    (former,) = made.status.pop("formerRoots")
    one = msgspec.structs.replace(
        made.authority,
        spec=msgspec.structs.replace(made.authority.spec, trust=Trust(config_map=TrustConfigMap(name="roots"))),
    )
    published = trust_distribution.plan(one, snapshot_of(one, *made.secrets), now=NOW, entropy=entropy())
    (config_map,) = objects(published.apply)
    assert config_map.data["ca.crt"] == certificate_pem(OTHER_ROOT.certificate) + certificate_pem(ROOT.certificate)
    made.reconcile()
    assert made.status["formerRoots"] == (former,)
    made.status["formerRoots"][0]["replacedAt"] = "2020-01-01T00:00:00Z"
    made.reconcile()
    assert made.status["formerRoots"] == (former,)
    made.recreate()
    assert made.status["formerRoots"] == (former,)
    assert not made.reconcile(now=NOW).apply
    assert made.status["formerRoots"] == (former,)


@pytest.mark.requirement("X51")
def test_a_renewed_certificate_alone_keeps_the_root() -> None:
    made = certified()
    alone = made.answer(serial=78).partition("-----END CERTIFICATE-----\n")
    plan = made.reconcile(certificate=alone[0] + alone[1])
    assert event_reasons(plan) == ["Renewed"]
    assert made.status["chain"] == alone[0] + alone[1] + certificate_pem(ROOT.certificate)
    assert (made.reconcile().apply, "Warnings" in condition_types(plan)) == ((), False)


def test_a_chain_without_a_root_is_told() -> None:
    made = Ceremony()
    made.reconcile()
    alone = made.answer().partition("-----END CERTIFICATE-----\n")
    plan = made.reconcile(certificate=alone[0] + alone[1])
    assert stated(plan).status == "True"
    told = stated(plan, "Warnings")
    assert (told.status, told.reason) == ("True", "FlawedCertificate")
    assert 'ends with "CN=Test issuing", which is no root' in told.message
    assert "Warnings" not in condition_types(made.reconcile(certificate=made.answer()))


@pytest.mark.requirement("X51")
def test_nothing_is_published_of_a_certificate_that_is_not_taken() -> None:
    made = certified()
    other = Ceremony()
    other.reconcile()
    made.reconcile(certificate=other.answer(OTHER_ROOT))
    published = str(x509.load_pem_x509_certificates(made.status["chain"].encode()))
    assert ("Corporate Root" in published, "New Root" in published) == (True, False)
    assert "formerRoots" not in made.status


@pytest.mark.requirement("X51")
def test_a_second_certificate_for_the_same_key_is_an_alternate_chain() -> None:
    made = certified()
    one = authority("issuing", internal=made.internal, status=made.status, uid=made.uid)
    spec = msgspec.structs.replace(one.spec, cross_certificates=(made.answer(OTHER_ROOT),))
    one = msgspec.structs.replace(one, spec=spec)
    plan = certificate_authority.plan(one, snapshot_of(one, *made.secrets), now=NOW, entropy=entropy())
    assert stated(plan, "AlternateChains").reason == "Published"


@pytest.mark.requirement("X58")
@pytest.mark.parametrize("state", ["certified", "waiting", "restored"])
def test_a_lost_key_is_never_replaced(state: str) -> None:
    made = certified() if state == "certified" else Ceremony()
    if state != "certified":
        made.reconcile()
    secrets, made.secrets = made.secrets, []
    if state == "restored":
        made.status, made.internal["certificate"] = {}, made.answer()
    plan = made.reconcile()
    assert (stated(plan).reason, objects(plan.apply)) == ("KeyLost", ())
    made.secrets = secrets
    expected = "WaitingForCertificate" if state == "waiting" else "Issued"
    assert stated(made.reconcile()).reason == expected


@pytest.mark.requirement("X58")
def test_a_key_that_the_certificate_is_not_for_signs_nothing() -> None:
    made = certified(certificate=None)
    (secret,) = made.secrets
    data = {**secret.data, "tls.key": private_key_pem(generate_key("ECDSA", 256))}
    made.secrets = [msgspec.structs.replace(secret, data=data)]
    plan = made.reconcile()
    assert (stated(plan).reason, objects(plan.apply)) == ("KeyMismatch", ())


@pytest.mark.requirement("X58")
@pytest.mark.parametrize("is_certified", [False, True])
def test_a_ca_that_is_created_again_has_its_key_again(is_certified: bool) -> None:
    made = certified() if is_certified else Ceremony()
    if not is_certified:
        made.reconcile()
    request, key = made.request, made.key
    plan = made.recreate(certificate=None)
    assert "Restored" in event_reasons(plan)
    assert stated(plan).reason == ("Issued" if is_certified else "WaitingForCertificate")
    assert made.request == request
    assert {each.data["tls.key"] for each in made.secrets} == {key}
    plan = made.reconcile()
    assert [each.metadata.name for each in objects(plan.delete)] == ["ca-uid-1"]
    assert (len(made.secrets), made.key) == (1, key)
    assert stated(made.reconcile(certificate=made.answer())).status == "True"


@pytest.mark.parametrize("first", [{"signedBy": "Request"}, {"signedBy": None}])
def test_a_root_and_a_ca_by_request_do_not_take_the_key_of_each_other(first: dict[str, Any]) -> None:
    made = Ceremony(**{key: each for key, each in first.items() if each})
    made.internal = {key: each for key, each in made.internal.items() if first[key] is not None}
    made.reconcile()
    key = made.key
    other = None if made.internal else "Request"
    made.recreate(signedBy=other)
    assert len({each.data["tls.key"] for each in made.secrets}) == 2
    assert key in {each.data["tls.key"] for each in made.secrets}


@pytest.mark.requirement("X51")
def test_limits_that_the_spec_gets_later_are_requested() -> None:
    made = certified()
    before = made.request
    plan = made.reconcile(nameConstraints={"permitted": {"dnsDomains": ["example.com"]}})
    assert (stated(plan).status, stated(plan, "Reconciled").reason) == ("True", "ConstraintsMissing")
    assert made.request != before
    plan = made.reconcile(certificate=made.answer())
    assert (stated(plan).status, "Reconciled" in condition_types(plan)) == ("True", False)


@pytest.mark.requirement("X51")
def test_limits_of_the_corporate_ca_bind_what_is_issued_below() -> None:
    narrow = pki.root(common_name="Narrow", constraints=NameConstraints(permitted_domains=("corp.example",)))
    made = Ceremony()
    made.reconcile()
    no_cas = (x509.BasicConstraints(ca=True, path_length=0), True)
    answer = made.answer(narrow, leave_out=[x509.BasicConstraints], more=[no_cas])
    assert stated(made.reconcile(certificate=answer)).status == "True"
    constraints = constraints_of(made.status["chain"])
    refused = constraint_violations([dns_name("a.corp.example"), dns_name("a.example.com")], constraints)
    assert [each.name.value for each in refused if each.name is not None] == ["a.example.com"]
    below = authority("below", internal={"issuerRef": {"name": "issuing"}})
    plan = certificate_authority.plan(
        below, snapshot_of(below, made.authority, *made.secrets), now=NOW, entropy=entropy()
    )
    assert stated(plan).reason == "PathLengthExceeded"
