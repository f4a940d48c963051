"""ACMEAccounts for tests."""

from __future__ import annotations

from kms.resources.accounts import AccountSpec, ACMEAccount
from kms.resources.meta import LocalRef, ObjectMeta


def account(
    name: str, namespace: str = "pki", *, thumbprint: str = "t" * 43, labels: dict[str, str] | None = None
) -> ACMEAccount:
    """A new account, not stored yet."""
    return ACMEAccount(
        metadata=ObjectMeta(name=name, namespace=namespace, labels=labels or {}),
        spec=AccountSpec(
            profile_ref=LocalRef(name="web"),
            key='{"crv":"P-256","kty":"EC","x":"eA","y":"eQ"}',
            thumbprint=thumbprint,
        ),
    )
