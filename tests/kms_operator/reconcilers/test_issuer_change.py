"""A profile moves to another CA: clients trust the new root before it issues, and the former one for some time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from kms.pki.ca import chain_to_root_pem
from kms.pki.certificate import Signer, certificate_pem
from kms.resources.authorities import CertificateAuthority, ExternalAuthority, FormerRoot
from kms.resources.core import Secret
from kms.resources.kept import SERVED_PROFILES, Departure, digest_of, profile_digest
from kms.resources.profiles import CertificateProfile
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_authority, certificate_profile
from tests.support import pki
from tests.support.operated import (
    DAY,
    NOW,
    SERVING,
    SETTINGS,
    authority,
    entropy,
    objects,
    policy,
    profile,
    published,
    ready_status,
    snapshot_of,
    stored,
)

OLD = pki.root(common_name="Old", with_key=pki.key(which="old"))
NEW = pki.root(common_name="New", with_key=pki.key(which="new"))
SHORT = pki.root(common_name="Old", with_key=pki.key(which="old"), not_after=NOW + 5 * DAY)
FOREIGN = pki.root(common_name="Foreign", with_key=pki.key(which="foreign"))
DIGEST = profile_digest(("pki", "web"))


def ca(name: str, signer: Signer, *, trust: dict[str, Any] | None = None, **status: Any) -> CertificateAuthority:
    return authority(name, trust=trust, status={**published(signer), **status})


BEFORE = ca("old", OLD)


def moved(plan: Plan | None = None, *, to: str = "new") -> CertificateProfile:
    """The profile with the status of an earlier plan, and another CA in its spec."""
    status = msgspec.to_builtins(plan.status) if plan is not None else None
    one = profile(status=status)
    spec = msgspec.structs.replace(one.spec, issuer_ref=msgspec.structs.replace(one.spec.issuer_ref, name=to))
    return msgspec.structs.replace(one, spec=spec)


def signing(authority: CertificateAuthority, served: Mapping[str, Departure | None] | None = None) -> Secret:
    """The signing key of a CA, with the profiles that have named it; by default the profile names it."""
    signer = next(each for each in (OLD, NEW, SHORT, FOREIGN) if chain_to_root_pem(each) == authority.status.chain)
    profiles: Mapping[str, Departure | None] = {DIGEST: None} if served is None else served
    return certificate_authority.signing_secret(authority, signer, SETTINGS, served=profiles)


def reconciled(one: CertificateProfile, *others: Any, now: datetime = NOW) -> Plan:
    """Plan the profile; each CA has its signing key unless that is among the others."""
    there = {each.metadata.name for each in others}
    keys = [
        key
        for each in others
        if isinstance(each, CertificateAuthority)
        and each.status.chain is not None
        and (key := signing(each)).metadata.name not in there
    ]
    around = snapshot_of(one, policy(), SERVING, *others, *keys)
    return certificate_profile.plan(one, around, now=now, entropy=entropy())


def settled() -> tuple[Plan, Secret]:
    """The profile under the old CA."""
    plan = reconciled(moved(to="old"), BEFORE)
    return plan, stored(objects(plan.apply)[0])


def issuer(plan: Plan) -> str:
    status: Any = plan.status
    return str(status.issuer_ref.name)


def chain(plan: Plan) -> str:
    (written,) = objects(plan.apply)
    return str(written.data["chain.crt"].decode())


def test_the_former_root_stays_in_the_chain_for_the_overlap_of_the_new_ca() -> None:
    first, secret = settled()
    after = ca("new", NEW, trust={"overlap": "240h"}, **published_trust())
    plan = reconciled(moved(first), BEFORE, after, secret)
    assert chain(plan) == chain_to_root_pem(NEW) + chain_to_root_pem(OLD)
    assert issuer(plan) == "new"
    assert plan.requeue_at == NOW + 10 * DAY
    secret = stored(objects(plan.apply)[0])
    again = reconciled(moved(plan), BEFORE, after, secret, now=NOW + 9 * DAY)
    assert objects(again.apply) == ()
    ended = reconciled(moved(again), BEFORE, after, secret, now=NOW + 10 * DAY)
    assert chain(ended) == chain_to_root_pem(NEW)


def test_without_a_section_on_trust_the_former_root_stays_for_thirty_days() -> None:
    first, secret = settled()
    plan = reconciled(moved(first), BEFORE, ca("new", NEW), secret)
    assert plan.requeue_at == NOW + 30 * DAY


def test_a_root_that_ends_is_left_out_with_its_end() -> None:
    short = ca("old", SHORT)
    first = reconciled(moved(to="old"), short)
    plan = reconciled(moved(first), short, ca("new", NEW), stored(objects(first.apply)[0]), now=NOW + DAY)
    assert plan.requeue_at == NOW + 5 * DAY


def test_a_ca_below_the_same_root_changes_nothing_but_the_chain() -> None:
    first, secret = settled()
    plan = reconciled(moved(first), BEFORE, ca("new", OLD), secret)
    assert (objects(plan.apply), issuer(plan)) == ((), "new")


def test_a_move_back_leaves_the_root_in_the_chain_once() -> None:
    first, secret = settled()
    there = reconciled(moved(first), BEFORE, ca("new", NEW), secret)
    back = reconciled(moved(there, to="old"), BEFORE, ca("new", NEW), stored(objects(there.apply)[0]))
    assert chain(back) == chain_to_root_pem(OLD) + chain_to_root_pem(NEW)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        ({}, "old"),
        ({"reason": "WaitingForCertificate", "status": "False"}, "old"),
        ({"reason": "Published", "status": "True"}, "new"),
        ({"reason": "Forbidden", "status": "False"}, "new"),
    ],
)
def test_the_new_ca_issues_once_its_root_is_published(status: dict[str, str], name: str) -> None:
    first, secret = settled()
    after = ca("new", NEW, trust={"configMap": {"name": "roots"}}, **(published_trust(**status) if status else {}))
    plan = reconciled(moved(first), BEFORE, after, secret)
    assert issuer(plan) == name
    assert chain(plan) == chain_to_root_pem(NEW) + chain_to_root_pem(OLD), "it is trusted before it issues"


@pytest.mark.parametrize(("reason", "observed"), [("WaitingForCertificate", 1), ("Published", 2)])
def test_a_spec_whose_ca_does_not_issue_yet_is_not_observed(reason: str, observed: int) -> None:
    first, secret = settled()
    status = "True" if reason == "Published" else "False"
    after = ca("new", NEW, trust={"configMap": {"name": "roots"}}, **published_trust(reason, status))
    one = moved(first)
    one = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, generation=2))
    plan: Any = reconciled(one, BEFORE, after, secret)
    assert plan.status.observed_generation == observed


def test_the_old_ca_issues_until_the_new_one_is_ready() -> None:
    first, secret = settled()
    assert issuer(reconciled(moved(first), BEFORE, authority("new"), secret)) == "old"
    assert issuer(reconciled(moved(first), BEFORE, secret)) == "old"


def test_a_ca_that_can_issue_no_more_is_left_at_once() -> None:
    first, secret = settled()
    after = ca("new", NEW, trust={"configMap": {"name": "roots"}})
    assert issuer(reconciled(moved(first), after, secret)) == "new"
    lost = authority("old", status=ready_status("KeyLost", "False"))
    assert issuer(reconciled(moved(first), lost, after, secret)) == "new"


def falsified(plan: Plan, **fields: Any) -> CertificateProfile:
    """The profile under the new CA, with a status that another program has changed."""
    one = moved(plan)
    return msgspec.structs.replace(one, status=msgspec.structs.replace(one.status, **fields))


LEFT = Departure(NOW - DAY, digest_of(certificate_pem(OLD.certificate)))


@pytest.mark.parametrize(
    "fields",
    [
        {"root": certificate_pem(FOREIGN.certificate)},
        {"former_roots": (FormerRoot(certificate=certificate_pem(FOREIGN.certificate), replaced_at=NOW),)},
        {"former_roots": (FormerRoot(certificate=certificate_pem(OLD.certificate), replaced_at=NOW + 900 * DAY),)},
        {"root": None, "former_roots": ()},
    ],
)
def test_a_status_neither_publishes_a_root_nor_keeps_nor_drops_one(fields: dict[str, Any]) -> None:
    first, secret = settled()
    after = ca("new", NEW)
    old = signing(BEFORE, {DIGEST: LEFT})
    plan: Any = reconciled(falsified(first, **fields), BEFORE, after, old, secret)
    assert chain(plan) == chain_to_root_pem(NEW) + chain_to_root_pem(OLD)
    assert plan.status.former_roots == (FormerRoot(certificate=certificate_pem(OLD.certificate), replaced_at=LEFT.at),)
    assert plan.status.root == certificate_pem(NEW.certificate)
    late = reconciled(falsified(first, **fields), BEFORE, after, old, secret, now=LEFT.at + 31 * DAY)
    assert chain(late) == chain_to_root_pem(NEW)


def test_the_root_of_a_ca_that_the_profile_never_named_is_not_published() -> None:
    first, secret = settled()
    claims = falsified(first, former_roots=(FormerRoot(certificate=certificate_pem(OLD.certificate), replaced_at=NOW),))
    plan = reconciled(claims, BEFORE, ca("new", NEW), signing(BEFORE, {}), secret)
    assert chain(plan) == chain_to_root_pem(NEW)


def test_a_root_that_a_former_ca_has_got_later_is_not_published() -> None:
    first, secret = settled()
    renewed = ca("old", FOREIGN)
    key = certificate_authority.signing_secret(renewed, FOREIGN, SETTINGS, served={DIGEST: LEFT})
    plan = reconciled(moved(first), renewed, ca("new", NEW), key, secret)
    assert chain(plan) == chain_to_root_pem(NEW)


def test_a_profile_that_is_made_again_has_its_former_roots_again() -> None:
    plan = reconciled(moved(), BEFORE, ca("new", NEW), signing(BEFORE, {DIGEST: LEFT}))
    assert chain(plan) == chain_to_root_pem(NEW) + chain_to_root_pem(OLD)


def test_former_roots_of_an_older_version_stay() -> None:
    first, secret = settled()
    plan = reconciled(moved(first), BEFORE, ca("new", NEW), secret)
    key = signing(BEFORE)
    del key.metadata.annotations[SERVED_PROFILES]
    again: Any = reconciled(moved(plan), BEFORE, ca("new", NEW), key, stored(objects(plan.apply)[0]))
    assert (objects(again.apply), again.status.former_roots) == ((), plan.status.former_roots)  # type: ignore[union-attr]
    there = (BEFORE, key, msgspec.structs.replace(moved(plan), metadata=moved(plan).metadata))
    recorded: Any = certificate_authority.plan(BEFORE, snapshot_of(*there), now=NOW + DAY, entropy=entropy())
    (written,) = objects(recorded.apply)
    assert written.metadata.annotations[SERVED_PROFILES].startswith(f"{DIGEST}={NOW:%Y-%m-%d}")


def test_the_root_of_a_ca_without_a_signing_key_stays_as_its_spec_proves_it() -> None:
    anchor = certificate_pem(OLD.certificate)
    external = ExternalAuthority(trust_anchors=(anchor,))
    before = msgspec.structs.replace(
        BEFORE, spec=msgspec.structs.replace(BEFORE.spec, external=external, internal=None)
    )
    status = {"root": anchor, "former_roots": ()}
    around = (policy(), SERVING, before, ca("new", NEW), signing(ca("new", NEW)))
    for each in (status, {"root": None, "former_roots": (FormerRoot(certificate=anchor, replaced_at=NOW),)}):
        one = moved()
        one = msgspec.structs.replace(one, status=msgspec.structs.replace(one.status, **each))
        plan = certificate_profile.plan(one, snapshot_of(one, *around), now=NOW, entropy=entropy())
        assert chain(plan) == chain_to_root_pem(NEW) + anchor
        without = certificate_profile.plan(one, snapshot_of(one, *around[:2], *around[3:]), now=NOW, entropy=entropy())
        assert chain(without) == chain_to_root_pem(NEW)


def test_a_ca_in_the_status_that_the_profile_never_named_does_not_issue() -> None:
    first, secret = settled()
    after = ca("new", NEW, trust={"configMap": {"name": "roots"}})
    assert issuer(reconciled(moved(first), BEFORE, after, secret)) == "old"
    assert issuer(reconciled(moved(first), BEFORE, after, signing(BEFORE, {}), secret)) == "new"


def test_a_falsified_chain_of_a_ca_is_not_published() -> None:
    good = ca("old", OLD)
    key = signing(good)
    bad = msgspec.structs.replace(good, status=msgspec.structs.replace(good.status, chain=chain_to_root_pem(FOREIGN)))
    spec = msgspec.structs.replace(bad.spec, internal=None)
    plan = reconciled(moved(to="old"), msgspec.structs.replace(bad, spec=spec), key)
    assert chain(plan) == chain_to_root_pem(OLD)


def published_trust(reason: str = "Published", status: str = "True") -> dict[str, Any]:
    """The conditions of a CA that is ready, with what is said of its root."""
    at = (NOW - timedelta(hours=1)).isoformat()
    stated = {"type": "TrustPublished", "status": status, "reason": reason, "message": "", "lastTransitionTime": at}
    return {"conditions": [*ready_status()["conditions"], stated]}
