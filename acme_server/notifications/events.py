"""CloudEvents 1.0 in structured mode, and their signature.

CloudEvents has no signature, so it is that of Standard Webhooks: HMAC-SHA256 over id, time and body. In structured mode
the body has all attributes, so all are signed; in binary mode they would be headers outside of the signature.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from kms.contract import READY
from kms.resources.authorities import CertificateAuthority
from kms.resources.durations import format_duration
from kms.resources.meta import condition
from kms.resources.notifications import NotifiedEvent
from kms.resources.orders import ACMEOrder

MEDIA_TYPE: Final = "application/cloudevents+json; charset=utf-8"
PREFIX: Final = "ai.hanzo.kms.pki."
"""Of the types of events."""
_NAMES_OCTETS: Final = 16_384
_DETAIL: Final = 1_024
_QUIET: Final = frozenset({"Expired", "AccountDeactivated"})
"""Ends of orders that are no refusal."""


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event. `id` is the same at each attempt to deliver it, so that receivers can tell repetitions."""

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    data: dict[str, Any]

    @property
    def body(self) -> bytes:
        """The event in JSON (CloudEvents JSON format, 3.2)."""
        return msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": self.id,
                "type": self.type,
                "source": self.source,
                "subject": self.subject,
                "time": timestamp(self.time),
                "datacontenttype": "application/json",
                "data": self.data,
            }
        )


def timestamp(moment: datetime) -> str:
    """The time as RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def signature_headers(event_id: str, body: bytes, key: bytes, *, now: datetime) -> tuple[tuple[str, str], ...]:
    """The headers of Standard Webhooks, signed with this key."""
    sent = str(int(now.timestamp()))
    mac = hmac.digest(key, f"{event_id}.{sent}.".encode() + body, "sha256")
    return (
        ("webhook-id", event_id),
        ("webhook-timestamp", sent),
        ("webhook-signature", f"v1,{base64.b64encode(mac).decode()}"),
    )


def of_order(
    order: ACMEOrder, wanted: Sequence[NotifiedEvent], source: str, *, since: datetime
) -> Iterator[CloudEvent]:
    """What the order has to tell that happened after `since`: it was refused, or its certificate issued or revoked."""
    status = order.status
    if status.state == "valid" and "Issued" in wanted and status.issued_at is not None and status.issued_at > since:
        yield _of_certificate(order, "issued", source, status.issued_at)
    revocation = status.revocation
    if revocation is not None and "Revoked" in wanted and revocation.time > since:
        yield _of_certificate(order, "revoked", source, revocation.time, reason=revocation.reason)
    ready = condition(status.conditions, READY)
    if status.state != "invalid" or "Refused" not in wanted or status.error is None or ready is None:
        return
    if ready.reason not in _QUIET and ready.last_transition_time > since:
        more = {"error": status.error.type, "detail": status.error.detail[:_DETAIL], "reason": ready.reason}
        yield _event(order, "order.refused", "refused", source, time=ready.last_transition_time, more=more)


def of_ending_certificate(order: ACMEOrder, threshold: timedelta, source: str) -> CloudEvent | None:
    """The certificate ends within the threshold; None if it was revoked, or is none."""
    end = order.status.not_after
    if end is None or order.status.revocation is not None:
        return None
    within = format_duration(threshold)
    return _of_certificate(order, "expiring", source, end - threshold, mark=f"expiring-{within}", within=within)


def of_ending_authority(authority: CertificateAuthority, end: datetime, threshold: timedelta) -> CloudEvent:
    """The certificate of the CA, which ends at `end`, ends within the threshold."""
    meta, within = authority.metadata, format_duration(threshold)
    return CloudEvent(
        id=f"{meta.uid}/{int(end.timestamp())}/expiring-{within}",
        type=PREFIX + "authority.expiring",
        source=f"/certificateauthorities/{meta.namespace}/{meta.name}",
        subject=meta.name,
        time=end - threshold,
        data={
            "namespace": meta.namespace,
            "authority": meta.name,
            "caSubject": authority.status.subject,
            "serialNumber": authority.status.serial_number,
            "notAfter": timestamp(end),
            "within": within,
        },
    )


def _of_certificate(
    order: ACMEOrder, what: str, source: str, time: datetime, *, mark: str | None = None, **more: Any
) -> CloudEvent:
    status = order.status
    data: dict[str, Any] = {"serialNumber": status.serial_number, "authorityKeyID": status.authority_key_id}
    if status.not_before is not None and status.not_after is not None:
        data |= {"notBefore": timestamp(status.not_before), "notAfter": timestamp(status.not_after)}
    return _event(order, f"certificate.{what}", mark or what, source, time=time, more=data | more)


def _event(order: ACMEOrder, type_: str, mark: str, source: str, *, time: datetime, more: dict[str, Any]) -> CloudEvent:
    names, octets = [], 0
    for each in order.spec.identifiers:
        octets += len(each.value) + 3
        if octets <= _NAMES_OCTETS:
            names.append(each.value)
    data = {
        "namespace": order.metadata.namespace,
        "profile": order.spec.profile_ref.name,
        "order": order.metadata.name,
        "account": order.spec.account_ref.name,
        "clientNamespace": order.spec.client_namespace,
        "names": names,
        "namesOmitted": len(order.spec.identifiers) - len(names),
    }
    return CloudEvent(
        id=f"{order.metadata.uid}/{mark}",
        type=PREFIX + type_,
        source=source,
        subject=order.metadata.name,
        time=time,
        data=data | more,
    )
