"""CertificatePolicy: are its rules valid, and does a profile use it?

The caches of both programs hold the rules of policies that are in use only (`kms.resources.retained`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kms.clock import Entropy
from kms.contract import READY, WARNINGS
from kms.pki.issuable import issuable_by_policy
from kms.resources.columns import list_text
from kms.resources.compile import InvalidRules, RulesTooCostly, compile_policy
from kms.resources.kinds import PROFILES
from kms.resources.meta import condition, key_of
from kms.resources.policies import CertificatePolicy, PolicyStatus
from kms.resources.retained import IN_USE, is_reduced
from kms_operator.indexes import POLICY
from kms_operator.plan import ConditionUpdate, Plan, merge_conditions, not_ready, ready, transition_events
from kms_operator.reconcilers.rules_without_effect import NOTHING_ALLOWED, warnings
from kms_operator.snapshot import Read, Snapshot

ACCEPTED = "Accepted"
INVALID_RULES = "InvalidRules"
RULES_TOO_COSTLY = "RulesTooCostly"


def reads(policy: CertificatePolicy, snapshot: Snapshot) -> Iterable[Read]:  # noqa: ARG001 - all reconcilers are called alike
    """No further objects."""
    return ()


def plan(policy: CertificatePolicy, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:  # noqa: ARG001 - all reconcilers are called alike
    """Compile the rules; Ready, or the field that is wrong and why. InUse: whether a profile refers to the policy.

    Warnings: which rules have no effect.
    """
    updates = _known(policy) or _check(policy)
    old = policy.status.conditions
    status = PolicyStatus(
        observed_generation=policy.metadata.generation,
        dns_names=policy.status.dns_names if is_reduced(policy) else _dns_names(policy),
        conditions=merge_conditions(
            old, (*updates, _usage(policy, snapshot)), generation=policy.metadata.generation, now=now
        ),
    )
    return Plan(status=status, events=tuple(event for each in updates for event in transition_events(old, each)))


def _dns_names(policy: CertificatePolicy) -> str:
    rules = policy.spec.dns_names
    return list_text(rules.allowed) if rules is not None else ""


def _known(policy: CertificatePolicy) -> tuple[ConditionUpdate, ...]:
    """Return what was found for this version of a policy whose rules are not cached; nothing for others."""
    found = condition(policy.status.conditions, READY)
    if found is None or not is_reduced(policy):
        return ()
    known = (found, condition(policy.status.conditions, WARNINGS))
    return tuple(ConditionUpdate(each.status, each.reason, each.message, each.type) for each in known if each)


def _check(policy: CertificatePolicy) -> tuple[ConditionUpdate, ...]:
    """Return Ready, and Warnings if rules have no effect."""
    try:
        left = issuable_by_policy(compile_policy(policy))
    except InvalidRules as error:
        reason = RULES_TOO_COSTLY if isinstance(error, RulesTooCostly) else INVALID_RULES
        return (not_ready(reason, f"{error.field}: {error.message}"),)
    if left.objection is not None:
        return not_ready(NOTHING_ALLOWED, left.objection), *warnings(left.without_effect)
    return ready(ACCEPTED, "the rules are in force"), *warnings(left.without_effect)


def _usage(policy: CertificatePolicy, snapshot: Snapshot) -> ConditionUpdate:
    if snapshot.index.count(PROFILES, POLICY, key_of(policy)):
        return ConditionUpdate("True", "Referenced", "a CertificateProfile refers to the policy", IN_USE)
    return ConditionUpdate("False", "NotReferenced", "no CertificateProfile refers to the policy", IN_USE)
