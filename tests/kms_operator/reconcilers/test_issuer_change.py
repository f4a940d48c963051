"""A profile moves to another CA: clients trust the new root before it issues, and the former one for some time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from kms.pki.ca import chain_to_root_pem
from kms.pki.certificate import Signer
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.profiles import CertificateProfile
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_profile
from tests.support import pki
from tests.support.operated import (
    DAY,
    NOW,
    SERVING,
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


def ca(name: str, signer: Signer, *, trust: dict[str, Any] | None = None, **status: Any) -> CertificateAuthority:
    return authority(name, trust=trust, status={**published(signer), **status})


BEFORE = ca("old", OLD)


def moved(plan: Plan | None = None, *, to: str = "new") -> CertificateProfile:
    """The profile with the status of an earlier plan, and another CA in its spec."""
    status = msgspec.to_builtins(plan.status) if plan is not None else None
    one = profile(status=status)
    spec = msgspec.structs.replace(one.spec, issuer_ref=msgspec.structs.replace(one.spec.issuer_ref, name=to))
    return msgspec.structs.replace(one, spec=spec)


def reconciled(one: CertificateProfile, *others: Any, now: datetime = NOW) -> Plan:
    return certificate_profile.plan(one, snapshot_of(one, policy(), SERVING, *others), now=now, entropy=entropy())


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
    short = pki.root(common_name="Old", with_key=pki.key(which="old"), not_after=NOW + 5 * DAY)
    first = reconciled(moved(to="old"), ca("old", short))
    plan = reconciled(moved(first), ca("new", NEW), stored(objects(first.apply)[0]), now=NOW + DAY)
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


def published_trust(reason: str = "Published", status: str = "True") -> dict[str, Any]:
    """The conditions of a CA that is ready, with what is said of its root."""
    at = (NOW - timedelta(hours=1)).isoformat()
    stated = {"type": "TrustPublished", "status": status, "reason": reason, "message": "", "lastTransitionTime": at}
    return {"conditions": [*ready_status()["conditions"], stated]}
