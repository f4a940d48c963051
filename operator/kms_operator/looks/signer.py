"""Signers of Kubernetes: names that nothing describes, so that they cannot be asked."""

from __future__ import annotations

from kms.resources.authorities import CertificateAuthority
from kms_operator.observation import Observation

NOT_OBSERVABLE = "NotObservable"


async def look_at_signer(authority: CertificateAuthority, last: Observation | None) -> Observation:  # noqa: ARG001 - all looks are called alike
    """Say that whether a signer exists shows only when it signs."""
    signer = authority.spec.external.signer if authority.spec.external is not None else None
    name = signer.name if signer is not None else ""
    return Observation(
        "Unknown", NOT_OBSERVABLE, f"Kubernetes does not tell whether signer {name} exists; the first order shows it"
    )
