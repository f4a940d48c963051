"""CertificatePolicy: do its rules make sense?"""

from __future__ import annotations

from datetime import datetime

from kms.clock import Entropy
from kms.resources.compile import InvalidRules, compiled_policy
from kms.resources.policies import CertificatePolicy, PolicyStatus
from kms_operator.plan import Outcome, Verdict, announced, not_ready, ready, settled
from kms_operator.snapshot import Observed

ACCEPTED = "Accepted"
INVALID_RULES = "InvalidRules"


def reconcile(policy: CertificatePolicy, _seen: Observed, *, now: datetime, entropy: Entropy) -> Outcome:  # noqa: ARG001 - all reconcilers are called alike
    """Compile the rules; Ready, or the field that is wrong and why."""
    verdict = _verdict(policy)
    old = policy.status.conditions
    status = PolicyStatus(
        observed_generation=policy.metadata.generation,
        conditions=settled(old, (verdict,), generation=policy.metadata.generation, now=now),
    )
    return Outcome(status=status, notices=announced(old, verdict))


def _verdict(policy: CertificatePolicy) -> Verdict:
    try:
        compiled_policy(policy)
    except InvalidRules as error:
        return not_ready(INVALID_RULES, f"{error.field}: {error.message}")
    return ready(ACCEPTED, "the rules are in force")
