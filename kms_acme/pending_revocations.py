"""`kms-acme revoke --list-pending`: revocations that an external CA has yet to carry out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from acme_server.orders.lifetimes import is_over
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.resources.authorities import CertificateAuthority
from kms.resources.kinds import AUTHORITIES, ORDERS
from kms.resources.meta import Key, Unreadable
from kms.resources.orders import ACMEOrder
from kms_acme.status_changes import list_objects


async def find_pending(
    cluster: Cluster, *, now: datetime, on_unreadable: Callable[[Unreadable], None]
) -> tuple[tuple[ACMEOrder, CertificateAuthority | None], ...]:
    """The orders whose certificate is revoked here and not at its CA, each with the CA if it may be read.

    Expired certificates are left out, and so are those of CAs whose revocations are only recorded (revocation: Record).
    Raises ClusterError.
    """
    authorities: dict[Key, CertificateAuthority | None] = {}
    found = []
    async for order in list_objects(cluster, ORDERS, None, on_unreadable=on_unreadable, fields="status.state=valid"):
        asked, revocation, ends = order.status.authority, order.status.revocation, order.status.not_after
        if asked is None or revocation is None or revocation.propagated is not None:
            continue
        if ends is not None and is_over(ends, now=now):
            continue
        key = order.metadata.namespace, asked.name
        if key not in authorities:
            authorities[key] = await _authority(cluster, key)
        authority = authorities[key]
        external = authority.spec.external if authority is not None else None
        if external is None or external.revocation != "Record":
            found.append((order, authority))
    return tuple(found)


async def _authority(cluster: Cluster, key: Key) -> CertificateAuthority | None:
    try:
        return await cluster.get(AUTHORITIES, *key)
    except (errors.NotFound, errors.Forbidden, errors.Undecodable):
        return None


def describe_pending(order: ACMEOrder, authority: CertificateAuthority | None) -> str:
    """One line: the order, the serial number with colons, the CA, the reason, and how to revoke it there."""
    status = order.status
    asked, revocation = status.authority, status.revocation
    name = f"{order.metadata.namespace}/{order.metadata.name}"
    ca = asked.name if asked is not None else ""
    reason = revocation.reason if revocation is not None else ""
    serial = _with_colons(status.serial_number or "")
    return f"{name} {serial} CertificateAuthority {ca} ({reason}): {_how(authority, serial)}"


def _how(authority: CertificateAuthority | None, serial: str) -> str:
    external = authority.spec.external if authority is not None else None
    if external is not None and external.vault is not None:
        mount = external.vault.path.partition("/sign/")[0].partition("/issuer/")[0]
        return f"the servers repeat it, or run: bao write {mount}/revoke serial_number={serial}"
    if external is not None and external.cert_manager is not None:
        ref = external.cert_manager.issuer_ref
        return f"revoke it at the CA behind {ref.kind} {ref.name}; cert-manager cannot"
    if external is not None and external.signer is not None:
        return f"revoke it at the CA behind signer {external.signer.name}; Kubernetes cannot"
    return "revoke it at that CA"


def _with_colons(serial: str) -> str:
    digits = serial.zfill(len(serial) + len(serial) % 2)
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
