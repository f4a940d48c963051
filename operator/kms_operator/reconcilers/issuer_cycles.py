"""Cycles of CAs: each waits for its issuer, so none of them is ever issued."""

from __future__ import annotations

from kms.resources.authorities import CertificateAuthority
from kms_operator.snapshot import Snapshot

ISSUER_CYCLE = "IssuerCycle"


def find_cycle(authority: CertificateAuthority, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the names of the CAs of the cycle that the issuers of this CA end in, the first one again at the end.

    Empty if they end in a root, or in a CA that does not exist.
    """
    path = {authority.metadata.name: 0}
    current: CertificateAuthority | None = authority
    while current is not None and current.spec.internal is not None and current.spec.internal.issuer_ref is not None:
        ref = current.spec.internal.issuer_ref
        if ref.name in path:
            return (*list(path)[path[ref.name] :], ref.name)
        path[ref.name] = len(path)
        current = snapshot.authority(ref, namespace=authority.metadata.namespace)
    return ()


def describe_cycle(names: tuple[str, ...], namespace: str) -> str:
    """Return the message of the condition, with the way out: references to issuers are immutable."""
    return (
        f"the CertificateAuthorities of namespace {namespace} are issued in a cycle:"
        f" {' <- '.join(names)}; delete one of"
        " them, and create it again without spec.internal.issuerRef or with an issuer outside of the cycle"
    )
