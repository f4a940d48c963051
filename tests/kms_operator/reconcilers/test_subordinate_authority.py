"""Internal CAs that an external one certifies: when it is asked, which of its answers are taken, and what is stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509

from kms.issuers import KeyStores
from kms.pki.ca import Asked, InvalidAuthority, certificate_request, chain_to_root_pem
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.keys import load_private_key
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.meta import condition
from kms_operator.answers import AnsweredPlans
from kms_operator.observation import Observation, Observed
from kms_operator.plan import RESYNC, Plan
from kms_operator.questions import CertifyAuthority
from kms_operator.reconcilers import certificate_authority
from tests.support import pki
from tests.support.corporate_ca import certify
from tests.support.operated import (
    DAY,
    NOW,
    SETTINGS,
    authority,
    entropy,
    event_reasons,
    objects,
    ready_status,
    snapshot_of,
    stated,
    stored,
)

ALLOWED = replace(SETTINGS, external_authorities_from=("pki",))
ROOT = pki.root(common_name="Corporate Root", not_after=NOW + 3650 * DAY)
OTHER_ROOT = pki.root(common_name="New Root", with_key=pki.key(which="new root"), not_after=NOW + 3650 * DAY)
ANCHOR = certificate_pem(ROOT.certificate)
CERT_MANAGER = {"certManager": {"issuerRef": {"name": "corporate"}}}
VAULT = {
    "vault": {
        "server": "https://openbao.example.com:8200",
        "path": "pki/sign/web",
        "auth": {"tokenSecretRef": {"name": "openbao-token", "key": "token"}},
    }
}
DUE = NOW - DAY + 60 * DAY
"""Two thirds of the validity of what `certify` signs."""

Answer = Callable[[CertifyAuthority], str]


def by(signer: Signer = ROOT, **more: Any) -> Answer:
    return lambda question: certify(question.request, signer, **more)


def refuse(question: CertifyAuthority) -> str:
    raise InvalidAuthority("Denied", f"{question.issuer.metadata.name}: the request was denied: no")


@dataclass
class Below:
    """A CA below an external one, its Secret, and what was asked, from one reconciliation to the next."""

    answer: Answer = field(default_factory=by)
    external: Any = field(default_factory=lambda: {**CERT_MANAGER, "trustAnchors": [ANCHOR]})
    ready: Any = field(default_factory=ready_status)
    observed: str = ""
    internal: dict[str, Any] = field(default_factory=dict)
    settings: Any = ALLOWED
    status: Any = field(default_factory=dict)
    secrets: list[Secret] = field(default_factory=list)
    asked: list[CertifyAuthority] = field(default_factory=list)
    plan: Plan = field(default_factory=Plan)

    @property
    def authority(self) -> CertificateAuthority:
        return authority("below", internal={"issuerRef": {"name": "corporate"}, **self.internal}, status=self.status)

    async def reconcile(self, *, now: datetime = NOW) -> Plan:
        issuer = authority("corporate", external=self.external, status=self.ready)
        observation = Observation("True", "Observed", "", chain=self.observed)
        observations = {issuer.metadata.uid: Observed(1, observation, now + DAY)}
        snapshot = snapshot_of(self.authority, issuer, *self.secrets, settings=self.settings, observations=observations)
        self.plan = await AnsweredPlans(KeyStores.build(), no_credentials, self._certify).plan(
            certificate_authority.plan, self.authority, snapshot, now=now, entropy=entropy(str(now)), group="pki"
        )
        written = {each.metadata.name: stored(each) for each in objects(self.plan.apply)}
        self.secrets = [*(each for each in self.secrets if each.metadata.name not in written), *written.values()]
        self.status = msgspec.to_builtins(self.plan.status)
        return self.plan

    async def issued(self) -> Plan:
        """Reconcile until it has its first certificate: the key is stored before anything is asked."""
        await self.reconcile()
        return await self.reconcile()

    async def _certify(self, question: CertifyAuthority) -> bytes:
        self.asked.append(question)
        return self.answer(question).encode()

    @property
    def chain(self) -> str:
        chain: str = self.status["chain"]
        return chain


async def no_credentials(*_: object) -> dict[str, bytes]:
    raise AssertionError("a CA of Vault is asked by those who sign")


def other_condition(plan: Plan, type_: str) -> Any:
    status: Any = plan.status
    return condition(status.conditions, type_)


@pytest.mark.requirement("X52")
async def test_the_key_is_kept_before_its_certificate_is_asked_for() -> None:
    below = Below()
    plan = await below.reconcile()
    assert (stated(plan).status, stated(plan).reason, below.asked) == ("False", "Pending", [])
    (secret,) = below.secrets
    assert secret.data.keys() == {"tls.key", "ca.csr"}
    plan = await below.reconcile()
    assert (stated(plan).status, stated(plan).reason) == ("True", "Issued")
    (question,) = below.asked
    assert (question.request, question.replaces) == (secret.data["ca.csr"].decode(), 0)
    status: Any = plan.status
    assert (status.type, below.chain.endswith(ANCHOR)) == ("Intermediate", True)
    (secret,) = below.secrets
    assert secret.data["tls.crt"].decode() == below.chain
    assert plan.requeue_at == DUE


@pytest.mark.requirement("X52")
async def test_a_certificate_is_asked_for_once_until_it_is_due() -> None:
    below = Below()
    await below.issued()
    key = below.secrets[0].data["tls.key"]
    for now in (NOW, DUE - timedelta(seconds=1)):
        plan = await below.reconcile(now=now)
        assert (len(below.asked), objects(plan.apply), event_reasons(plan)) == (1, (), [])
    below.answer = by(serial=78, not_before=DUE - DAY, not_after=DUE + 90 * DAY)
    plan = await below.reconcile(now=DUE)
    assert (stated(plan).status, event_reasons(plan)) == ("True", ["Renewed"])
    assert (below.asked[1].replaces, below.secrets[0].data["tls.key"]) == (77, key)
    assert (other_condition(plan, "Reconciled"), other_condition(plan, "RenewalDue")) == (None, None)


@pytest.mark.requirement("X52")
async def test_a_ca_goes_on_with_its_certificate_while_the_other_one_refuses() -> None:
    below = Below()
    await below.issued()
    chain, below.answer = below.chain, refuse
    plan = await below.reconcile(now=DUE)
    assert (stated(plan).status, below.chain, plan.requeue_at) == ("True", chain, DUE + RESYNC)
    for type_, status in (("Reconciled", "False"), ("RenewalDue", "True")):
        found = other_condition(plan, type_)
        assert (found.status, "the request was denied: no" in found.message) == (status, True)
    plan = await below.reconcile(now=NOW + 90 * DAY)
    assert (stated(plan).status, stated(plan).reason) == ("False", "Denied")


@pytest.mark.requirement("X52")
@pytest.mark.parametrize(
    "dates",
    [(NOW - 900 * DAY, NOW + 90 * DAY), (NOW - timedelta(seconds=1), NOW + timedelta(seconds=60))],
    ids=["backdated", "short"],
)
async def test_a_ca_whose_new_certificates_are_due_at_once_is_not_asked_again_and_again(
    dates: tuple[datetime, datetime],
) -> None:
    below = Below()
    below.answer = lambda question: certify(
        question.request, ROOT, serial=77 + len(below.asked), not_before=dates[0], not_after=dates[1]
    )
    plan = await below.issued()
    chain, now = below.chain, NOW + timedelta(seconds=40)
    assert (stated(plan).status, len(below.asked)) == ("True", 1)
    for _ in range(3):
        plan = await below.reconcile(now=now)
        assert (stated(plan).status, below.chain, "Renewed" in event_reasons(plan)) == ("True", chain, False)
        assert "is due for renewal" in other_condition(plan, "Reconciled").message
    assert {question.replaces for question in below.asked[1:]} == {78}


@pytest.mark.requirement("X52")
@pytest.mark.parametrize("ready", [ready_status("IssuerNotReady", "False"), {}], ids=["not ready", "not looked at"])
async def test_a_valid_ca_does_not_need_the_other_one(ready: Any) -> None:
    below = Below()
    await below.issued()
    below.ready = ready
    plan = await below.reconcile()
    assert (stated(plan).status, other_condition(plan, "Reconciled"), len(below.asked)) == ("True", None, 1)


@pytest.mark.requirement("X52")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ready": ready_status("IssuerNotReady", "False")}, "IssuerNotReady"),
        ({"settings": SETTINGS}, "NamespaceNotAllowed"),
        ({"external": {"signer": {"name": "example.com/web"}, "trustAnchors": [ANCHOR]}}, "IssuerUnsuitable"),
        ({"external": {**CERT_MANAGER, "trustAnchors": ["none"]}}, "InvalidTrustAnchors"),
        ({"external": VAULT}, "IssuerNotReady"),
        ({"internal": {"duration": "soon"}}, "InvalidDuration"),
    ],
    ids=["not ready", "not allowed", "signer", "anchors", "vault not looked at", "duration"],
)
async def test_a_ca_that_must_not_be_asked_is_not(changes: Any, reason: str) -> None:
    below = Below(**changes)
    await below.reconcile()
    plan = await below.reconcile()
    assert (stated(plan).status, stated(plan).reason, below.asked) == ("False", reason, [])
    assert plan.requeue_at is not None


def looped(question: CertifyAuthority, *, deep: bool) -> str:
    """An answer whose signer has the key of the request: the issuer asked uses the Secret of this very CA."""
    secret = LOOPING.secrets[0]
    own = load_private_key(secret.data["tls.key"])
    name = "Another name" if deep else "Test below"
    signer = pki.root(common_name=name, with_key=own, not_after=NOW + 900 * DAY)
    return certify(question.request, signer)


LOOPING = Below()


@pytest.mark.requirement("X52", "X4")
@pytest.mark.parametrize("deep", [False, True], ids=["itself", "by another name"])
async def test_a_ca_that_is_to_sign_itself_is_refused(deep: bool) -> None:
    LOOPING.secrets, LOOPING.status = [], {}
    LOOPING.answer = lambda question: looped(question, deep=deep)
    await LOOPING.reconcile()
    plan = await LOOPING.reconcile()
    assert (stated(plan).status, stated(plan).reason) == ("False", "IssuerLoops")
    assert "signed by this very CA" in stated(plan).message


@pytest.mark.requirement("X52", "X34")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (by(OTHER_ROOT), "ChainBroken"),
        (lambda _: certify(pki_request(), ROOT), "KeyMismatch"),
        (by(not_after=NOW - timedelta(hours=1)), "Expired"),
        (lambda _: "no certificate", "InvalidCertificate"),
        (lambda _: "x" * 200_000, "InvalidCertificate"),
        (by(leave_out=[x509.BasicConstraints]), "NotACertificateAuthority"),
    ],
    ids=["another root", "another key", "ended", "nothing", "too long", "a leaf"],
)
async def test_an_answer_that_cannot_be_used_is_not_taken(answer: Answer, reason: str) -> None:
    below = Below(answer=answer)
    plan = await below.issued()
    ready = stated(plan)
    assert (ready.status, ready.reason) == ("False", reason)
    assert "CertificateAuthority pki/corporate has returned a certificate that cannot be used" in ready.message
    status: Any = plan.status
    assert (status.certificate, "tls.crt" in below.secrets[0].data) == (None, False)


def pki_request() -> str:
    return certificate_request(Asked("Test below"), pki.key(which="another"))


@pytest.mark.requirement("X52")
async def test_a_limit_that_the_other_ca_leaves_out_is_missed() -> None:
    constraints = {"permitted": {"dnsDomains": ["example.com"]}}
    below = Below(answer=by(leave_out=[x509.NameConstraints]), internal={"nameConstraints": constraints})
    plan = await below.issued()
    assert (stated(plan).status, stated(plan).reason) == ("False", "ConstraintsMissing")
    below.answer = by()
    assert stated(await below.reconcile()).status == "True"


@pytest.mark.requirement("X52")
async def test_vault_tells_the_root_and_how_long_it_lasts() -> None:
    ends = NOW + 100 * DAY
    above = pki.root(common_name="Corporate Root", not_after=ends)
    below = Below(external=VAULT, observed=chain_to_root_pem(above), answer=by(above, not_after=NOW + 50 * DAY))
    plan = await below.issued()
    assert stated(plan).status == "True"
    (question,) = below.asked
    assert timedelta(days=99) < question.duration < timedelta(days=100)


@pytest.mark.requirement("X52")
async def test_another_root_of_the_external_ca_is_followed() -> None:
    below = Below()
    await below.issued()
    below.external = {**CERT_MANAGER, "trustAnchors": [certificate_pem(OTHER_ROOT.certificate)]}
    below.answer = by(OTHER_ROOT, serial=78)
    plan = await below.reconcile()
    assert (stated(plan).status, sorted(event_reasons(plan))) == ("True", ["Renewed", "RootChanged"])


@pytest.mark.requirement("X52", "X58")
async def test_a_key_that_is_lost_is_not_made_again() -> None:
    below = Below()
    await below.issued()
    below.secrets = []
    assert stated(await below.reconcile()).reason == "KeyLost"
    assert len(below.asked) == 1
