"""CertificatePolicy: are its rules valid?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kms.clock import Entropy
from kms.resources.compile import InvalidRules, RulesTooCostly, compile_policy
from kms.resources.policies import CertificatePolicy, PolicyStatus
from kms_operator.plan import ConditionUpdate, Plan, merge_conditions, not_ready, ready, transition_events
from kms_operator.snapshot import Read, Snapshot

ACCEPTED = "Accepted"
INVALID_RULES = "InvalidRules"
RULES_TOO_COSTLY = "RulesTooCostly"


def reads(policy: CertificatePolicy, snapshot: Snapshot) -> Iterable[Read]:  # noqa: ARG001 - all reconcilers are called alike
    """No further objects."""
    return ()


def plan(policy: CertificatePolicy, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:  # noqa: ARG001 - all reconcilers are called alike
    """Compile the rules; Ready, or the field that is wrong and why."""
    update = _compile(policy)
    old = policy.status.conditions
    status = PolicyStatus(
        observed_generation=policy.metadata.generation,
        conditions=merge_conditions(old, (update,), generation=policy.metadata.generation, now=now),
    )
    return Plan(status=status, events=transition_events(old, update))


def _compile(policy: CertificatePolicy) -> ConditionUpdate:
    try:
        compile_policy(policy)
    except InvalidRules as error:
        reason = RULES_TOO_COSTLY if isinstance(error, RulesTooCostly) else INVALID_RULES
        return not_ready(reason, f"{error.field}: {error.message}")
    return ready(ACCEPTED, "the rules are in force")
