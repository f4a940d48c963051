"""External CAs: whether the server may ask them, what is published of them, and when the operator looks again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from kms.pki.ca import subject_key_id
from kms.pki.certificate import certificate_pem, sign_leaf
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.kinds import SECRETS
from kms.resources.retained import retained
from kms.resources.secret_names import COMPONENT, ISSUER_CREDENTIALS, OWNER_UID, signing_key_name
from kms_operator.observation import MINUTE, Observation, Observed, observed
from kms_operator.plan import Denial, Plan, Refusal
from kms_operator.reconcilers import certificate_authority, trust_distribution
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
    objects,
    snapshot_of,
    stated,
    stored,
)

ALLOWED = replace(SETTINGS, external_authorities_from=("pki",))
ROOT, OTHER = pki.root(), pki.root(common_name="Other Root", with_key=pki.key(which="other"), serial=2)
ANCHOR, OTHER_ANCHOR = certificate_pem(ROOT.certificate), certificate_pem(OTHER.certificate)
ISSUER = {"issuerRef": {"name": "corporate"}}
VAULT = {
    "server": "https://openbao.example.com:8200",
    "path": "pki/sign/web",
    "auth": {"tokenSecretRef": {"name": "openbao-token", "key": "token"}},
}
READY = Observation("True", "IssuerReady", "Issuer pki/corporate is ready")
ASSUMED = Observation("Unknown", "Forbidden", "the operator may not read awspcaissuers")
MISSING = Observation("False", "IssuerNotFound", "Issuer pki/corporate does not exist; create it")
UID = "uid-pki-corporate"


def corporate(
    *,
    anchors: tuple[str, ...] = (ANCHOR,),
    status: Any = None,
    generation: int = 1,
    trust: Any = None,
    **external: Any,
) -> CertificateAuthority:
    kind = external or {"certManager": ISSUER}
    spec = {**kind, **({"trustAnchors": anchors} if anchors else {})}
    return authority("corporate", external=spec, status=status, generation=generation, trust=trust)


def looked(latest: Observation, *, generation: int = 1, failures: int = 0, at: datetime = NOW) -> Observed:
    return Observed(generation, latest, at + MINUTE, failures)


def reconciled(
    one: CertificateAuthority, found: Observed | None, *others: Any, now: datetime = NOW, settings: Any = ALLOWED
) -> Plan:
    observations = {UID: found} if found is not None else {}
    snapshot = snapshot_of(one, *others, settings=settings, observations=observations)
    return certificate_authority.plan(one, snapshot, now=now, entropy=entropy())


def after(one: CertificateAuthority, plan: Plan) -> CertificateAuthority:
    """The CA with the status that the plan states."""
    status: Any = plan.status
    return msgspec.structs.replace(one, status=status)


def ready_one(**more: Any) -> CertificateAuthority:
    one = corporate(**more)
    return after(one, reconciled(one, looked(READY)))


# What is looked at, and when


def test_a_new_ca_is_looked_at_before_anything_is_stated() -> None:
    plan = reconciled(corporate(), None)
    assert plan == Plan(look=True)


def test_after_a_change_of_the_spec_what_was_observed_before_does_not_count() -> None:
    one = ready_one()
    changed = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, generation=2))
    assert reconciled(changed, looked(READY)) == Plan(look=True)


@pytest.mark.requirement("X3")
def test_the_next_look_is_a_minute_after_the_last() -> None:
    plan = reconciled(corporate(), looked(READY))
    assert (plan.look, plan.requeue_at) == (False, NOW + MINUTE)
    assert reconciled(corporate(), looked(READY), now=NOW + MINUTE).look


@pytest.mark.requirement("X2")
@pytest.mark.parametrize(
    "external", [{"certManager": ISSUER}, {"signer": {"name": "example.com/web"}}, {"vault": VAULT}]
)
def test_in_a_namespace_that_is_not_allowed_nothing_is_read_looked_at_or_copied(external: Any) -> None:
    one = corporate(**external)
    credentials = Observation("True", "x", "", credentials={"token": b"t"})
    plan = reconciled(one, looked(credentials), settings=SETTINGS)
    assert stated(plan).reason == "NamespaceNotAllowed"
    assert "--external-authorities-from pki (in the chart externalAuthorities.from)" in stated(plan).message
    assert (plan.look, plan.apply, plan.requeue_at) == (False, (), None)
    assert list(certificate_authority.reads(one, snapshot_of(one))) == []


@pytest.mark.requirement("X2")
def test_the_release_namespace_may_have_external_cas() -> None:
    one = authority("corporate", namespace=RELEASE, external={"certManager": ISSUER, "trustAnchors": [ANCHOR]})
    snapshot = snapshot_of(one, observations={one.metadata.uid: looked(READY)})
    assert stated(certificate_authority.plan(one, snapshot, now=NOW, entropy=entropy())).reason == "Observed"


@pytest.mark.requirement("X2")
def test_credentials_are_deleted_when_a_namespace_is_no_longer_allowed() -> None:
    one, existing = with_credentials()
    plan = reconciled(one, None, existing, settings=SETTINGS)
    assert objects(plan.delete) == (existing,)


def test_what_tenants_write_without_being_allowed_is_not_kept() -> None:
    one = corporate(anchors=(ANCHOR, OTHER_ANCHOR), vault={**VAULT, "caBundle": ANCHOR})
    refused = after(one, reconciled(one, None, settings=SETTINGS))
    kept = retained(refused)
    assert len(msgspec.json.encode(kept.spec)) < 400
    # Allowed since then: the write of the status brings the whole object.
    again = reconciled(kept, None)
    assert (stated(again).reason, again.look) == ("Pending", False)
    assert retained(after(one, again)).spec == one.spec


# Ready


@pytest.mark.parametrize(
    ("found", "ready", "issuer"),
    [
        (READY, ("True", "Observed"), ("True", "IssuerReady")),
        (ASSUMED, ("True", "Assumed"), ("Unknown", "Forbidden")),
        (MISSING, ("False", "IssuerNotFound"), ("False", "IssuerNotFound")),
    ],
    ids=["ready", "assumed", "missing"],
)
def test_ready_follows_what_was_observed(found: Observation, ready: Any, issuer: Any) -> None:
    plan = reconciled(corporate(), looked(found, failures=int(found.status == "False")))
    for type_, outcome in {"Ready": ready, "IssuerObserved": issuer}.items():
        one = stated(plan, type_)
        assert ((one.status, one.reason), one.message) == (outcome, found.message)
    status: Any = plan.status
    assert (status.type, status.observed_generation) == ("CertManager", 1)
    assert event_reasons(plan) == [ready[1], issuer[1]]


@pytest.mark.requirement("X11")
def test_ready_becomes_false_only_after_two_failed_looks_in_a_row() -> None:
    one = ready_one()
    seen = looked(READY)
    outcomes = []
    for found in (MISSING, READY, MISSING, MISSING, READY):
        seen = observed(seen, found, generation=1, now=NOW)
        plan = reconciled(one, seen)
        one = after(one, plan)
        outcomes.append((stated(plan).status, stated(plan, "IssuerObserved").status))
    assert outcomes == [("True", "False"), ("True", "True"), ("True", "False"), ("False", "False"), ("True", "True")]


@pytest.mark.requirement("X11")
def test_a_change_of_the_spec_acts_at_once() -> None:
    one = ready_one()
    changed = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, generation=2))
    seen = observed(looked(READY), MISSING, generation=2, now=NOW)
    plan = reconciled(changed, seen)
    assert (stated(plan).status, stated(plan).reason) == ("False", "IssuerNotFound")


@pytest.mark.requirement("X4")
def test_an_issuer_that_becomes_a_loop_is_not_asked_again() -> None:
    """In the minute until the next look, every order would have made another one."""
    loop = Observation("False", "IssuerLoops", "is an ACME issuer of this server", is_definite=True)
    plan = reconciled(ready_one(), observed(looked(READY), loop, generation=1, now=NOW))
    assert (stated(plan).status, stated(plan).reason) == ("False", "IssuerLoops")


def test_what_is_published_stays_while_the_issuer_is_away() -> None:
    one = ready_one()
    status: Any = reconciled(one, looked(MISSING, failures=2)).status
    assert (status.certificate, status.chain, status.not_after) == (
        one.status.certificate,
        one.status.chain,
        one.status.not_after,
    )


def test_two_looks_of_different_generations_are_not_two_in_a_row() -> None:
    assert observed(looked(MISSING, failures=5), MISSING, generation=2, now=NOW).failures == 1


# Trust anchors


@pytest.mark.requirement("X9")
def test_the_status_describes_the_first_trust_anchor() -> None:
    status: Any = reconciled(corporate(anchors=(ANCHOR, OTHER_ANCHOR)), looked(READY)).status
    assert (status.certificate, status.chain, status.subject) == (ANCHOR, ANCHOR, "CN=Test Root")
    assert (status.not_after, status.serial_number) == (NOW + 365 * DAY, "1")
    assert status.subject_key_id == subject_key_id(ROOT.certificate)


TRUST = {"configMap": {"name": "corporate-root"}}


def publishing() -> tuple[CertificateAuthority, Secret]:
    """A CA that publishes its root, and the Secret that proves which one it is."""
    one = corporate(trust=TRUST)
    plan = reconciled(one, looked(READY))
    (written,) = objects(plan.apply)
    return after(one, plan), stored(written)


def published(one: CertificateAuthority, *others: Any) -> str:
    snapshot = snapshot_of(one, *others, settings=ALLOWED)
    plan = trust_distribution.plan(one, snapshot, now=NOW, entropy=entropy())
    (written,) = objects(plan.apply)
    pem: str = written.data["ca.crt"]
    return pem


@pytest.mark.requirement("X10")
def test_another_first_anchor_makes_the_one_before_a_former_root() -> None:
    one, secret = publishing()
    assert secret.data == {"chain.crt": ANCHOR.encode()}
    assert secret.metadata.labels[COMPONENT] == ISSUER_CREDENTIALS
    assert reconciled(one, looked(READY), secret).apply == ()
    anchors = (OTHER_ANCHOR, ANCHOR)
    changed = corporate(anchors=anchors, status=msgspec.to_builtins(one.status), generation=2, trust=TRUST)
    plan = reconciled(changed, looked(READY, generation=2), secret)
    status: Any = plan.status
    assert status.chain == OTHER_ANCHOR
    assert [(each.certificate, each.replaced_at) for each in status.former_roots] == [(ANCHOR, NOW)]
    assert event_reasons(plan) == ["Renewed"]
    (written,) = objects(plan.apply)
    done = after(changed, plan)
    assert published(done, stored(written)) == OTHER_ANCHOR + ANCHOR
    again: Any = reconciled(done, looked(READY, generation=2), stored(written))
    assert (again.status.former_roots, again.apply) == (status.former_roots, ())
    emptied = after(done, again)
    emptied = msgspec.structs.replace(emptied, status=msgspec.structs.replace(emptied.status, former_roots=()))
    assert published(emptied, stored(written)) == OTHER_ANCHOR + ANCHOR
    again = reconciled(emptied, looked(READY, generation=2), stored(written))
    assert (again.status.former_roots, again.apply) == (status.former_roots, ())


@pytest.mark.requirement("X10")
@pytest.mark.parametrize("what", ["formerRoots", "chain", "both"])
@pytest.mark.parametrize("has_secret", [True, False])
def test_a_status_that_somebody_has_changed_publishes_no_root(what: str, has_secret: bool) -> None:
    one, secret = publishing()
    forged: dict[str, Any] = msgspec.to_builtins(one.status)
    if what != "chain":
        forged["formerRoots"] = [{"certificate": OTHER_ANCHOR, "replacedAt": "2026-11-23T11:00:00Z"}]
    if what != "formerRoots":
        forged["chain"] = OTHER_ANCHOR
    one = corporate(status=forged, trust=TRUST)
    secrets = (secret,) if has_secret else ()
    if has_secret:
        assert published(one, *secrets) == ANCHOR
    plan = reconciled(one, looked(READY), *secrets)
    status: Any = plan.status
    assert (status.chain, status.former_roots) == (ANCHOR, ())
    secrets = tuple(map(stored, objects(plan.apply))) or secrets
    assert published(after(one, plan), *secrets) == ANCHOR


def test_a_ca_that_publishes_no_root_needs_no_secret() -> None:
    plan = reconciled(corporate(), looked(READY))
    assert (plan.apply, list(certificate_authority.reads(corporate(), snapshot_of(corporate())))) == ((), [])
    full = replace(ALLOWED, maximum_secrets=0)
    plan = reconciled(corporate(trust=TRUST), looked(READY), settings=full)
    assert (stated(plan).status, plan.apply) == ("True", ()), "it is asked all the same"


@pytest.mark.requirement("X10")
def test_the_first_anchor_is_published_before_anything_was_issued() -> None:
    one = authority(
        "corporate",
        external={"certManager": ISSUER, "trustAnchors": [ANCHOR, OTHER_ANCHOR]},
        trust={"configMap": {"name": "corporate-root"}},
    )
    plan = reconciled(one, looked(READY))
    status: Any = plan.status
    assert status.observed_generation == 0, "the root is not published yet"
    done = after(one, plan)
    published = trust_distribution.plan(done, snapshot_of(done, settings=ALLOWED), now=NOW, entropy=entropy())
    assert [each.data for each in objects(published.apply)] == [{"ca.crt": ANCHOR}]


def expired(which: str = "old") -> str:
    ended = pki.root(with_key=pki.key(which=which), not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    return certificate_pem(ended.certificate)


LEAF = certificate_pem(sign_leaf(pki.leaf(), ROOT))


@pytest.mark.parametrize(
    ("anchor", "says"),
    [
        ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "cannot be read"),
        ("-----BEGIN CERTIFICATE-----", "cannot be read"),
        (expired(), "ended at 2026-11-22T12:00:00Z; write the CA's present root, and remove this one"),
        (LEAF, "is not the certificate of a CA: its basicConstraints say CA:FALSE; write the root of the CA"),
        (ANCHOR + OTHER_ANCHOR, "has 2 certificates; write each as an entry of its own"),
    ],
    ids=["damaged", "cut", "ended", "leaf", "two"],
)
def test_an_anchor_that_is_of_no_use_is_told_with_its_place(anchor: str, says: str) -> None:
    plan = reconciled(corporate(anchors=(anchor,)), looked(READY))
    assert (stated(plan).reason, plan.look) == ("InvalidTrustAnchors", False)
    assert "spec.external.trustAnchors[0]" in stated(plan).message
    assert says in stated(plan).message


def test_an_anchor_that_has_ended_stops_nothing_while_another_is_valid() -> None:
    plan = reconciled(corporate(anchors=(expired(), ANCHOR)), looked(READY))
    status: Any = plan.status
    assert (stated(plan).status, status.chain) == ("True", ANCHOR)
    assert stated(plan, "Warnings").reason == "FlawedTrustAnchor"
    assert "spec.external.trustAnchors[0]" in stated(plan, "Warnings").message


def test_the_ca_is_looked_at_when_an_anchor_ends() -> None:
    soon = pki.root(with_key=pki.key(which="soon"), not_after=NOW + timedelta(seconds=30))
    plan = reconciled(corporate(anchors=(certificate_pem(soon.certificate), ANCHOR)), looked(READY))
    assert plan.requeue_at == NOW + timedelta(seconds=30)


# Chains and credentials that a look brings


def told(chain: str = "", **credentials: bytes) -> Observation:
    return Observation("True", "Observed", "signs by role web of pki", chain=chain, credentials=credentials or None)


def test_a_chain_that_the_issuer_tells_is_published_instead_of_the_anchor() -> None:
    issuing = pki.below(ROOT)
    chain = certificate_pem(issuing.certificate) + ANCHOR
    status: Any = reconciled(corporate(anchors=(), vault=VAULT), looked(told(chain))).status
    assert (status.type, status.chain, status.subject) == ("Vault", chain, "CN=Test Issuing CA")
    assert status.not_after == NOW + 180 * DAY


def test_without_chain_and_anchors_the_condition_asks_for_anchors() -> None:
    plan = reconciled(corporate(anchors=(), vault=VAULT), looked(told()))
    assert stated(plan).reason == "InvalidTrustAnchors"
    assert "set spec.external.trustAnchors" in stated(plan).message


def with_credentials(**credentials: bytes) -> tuple[CertificateAuthority, Secret]:
    one = corporate(vault=VAULT)
    found = Observation("True", "Observed", "signs by role web of pki", credentials=credentials or {"token": b"t"})
    plan = reconciled(one, looked(found))
    (written,) = objects(plan.apply)
    return after(one, plan), stored(written)


@pytest.mark.requirement("X5")
def test_credentials_are_handed_to_the_server_in_a_secret_of_the_release_namespace() -> None:
    one, written = with_credentials(token=b"hvs.1")
    assert (written.metadata.namespace, written.metadata.name) == (RELEASE, signing_key_name(UID))
    assert written.metadata.labels[COMPONENT] == ISSUER_CREDENTIALS
    assert written.metadata.labels[OWNER_UID] == UID
    assert written.data == {"token": b"hvs.1", "chain.crt": ANCHOR.encode()}
    assert list(certificate_authority.reads(one, snapshot_of(one, settings=ALLOWED))) == [
        Read(SECRETS, RELEASE, signing_key_name(UID))
    ]
    assert reconciled(one, looked(told(token=b"hvs.1")), written).apply == ()
    (changed,) = objects(reconciled(one, looked(told(token=b"hvs.2")), written).apply)
    assert changed.data == {"token": b"hvs.2", "chain.crt": ANCHOR.encode()}
    assert reconciled(one, looked(MISSING, failures=2), written).apply == ()


def test_credentials_show_in_no_text() -> None:
    assert "hvs" not in repr(looked(told(token=b"hvs.1")))


def test_a_secret_that_the_api_server_refuses_makes_the_ca_not_ready() -> None:
    plan = reconciled(corporate(vault=VAULT), looked(told(token=b"t")))
    assert plan.on_refusals is not None
    refused = plan.on_refusals([Refusal(plan.apply[0], Denial("Forbidden", "exceeded quota"))])
    assert (stated(refused).status, stated(refused).reason) == ("False", "Forbidden")


def test_a_ca_that_gets_no_secret_is_not_looked_at() -> None:
    full = replace(ALLOWED, maximum_secrets=0)
    plan = reconciled(corporate(vault=VAULT), None, settings=full)
    assert (stated(plan).reason, plan.look) == ("SecretLimitReached", False)
    assert reconciled(corporate(), None, settings=full).look, "no Secret is needed for an issuer of cert-manager"
