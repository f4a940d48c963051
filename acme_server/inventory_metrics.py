"""Gauges of what ends when. They are set from counts that are made in the background, so a scrape costs no counting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from prometheus_client import CollectorRegistry, Gauge

WITHIN: Mapping[str, timedelta] = {
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "14d": timedelta(days=14),
    "30d": timedelta(days=30),
}
"""The values of the label `ends_within`: each includes those before it. Certificates that end later count as `more`."""
MORE = "more"

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the gauges show: seconds since the epoch by (namespace, name, type) of a CA, and counts.

    Certificates are counted by (namespace, profile, ends_within), credentials by (state,).
    """

    authorities: Mapping[Labels, float] = field(default_factory=dict)
    certificates: Mapping[Labels, float] = field(default_factory=dict)
    not_renewed: Mapping[Labels, float] = field(default_factory=dict)
    credentials: Mapping[Labels, float] = field(default_factory=dict)


class InventoryMetrics:
    """The gauges. What is no longer in the inventory disappears from them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        of_profile = ("namespace", "profile", "ends_within")
        self._authorities = _Series(
            Gauge(
                "kms_acme_certificate_authority_not_after_timestamp_seconds",
                "When the certificate of a CA ends.",
                ("namespace", "name", "type"),
                registry=registry,
            )
        )
        self._certificates = _Series(
            Gauge(
                "kms_acme_certificates",
                "Certificates that are neither revoked nor expired and end within that time (more: later than 30d).",
                of_profile,
                registry=registry,
            )
        )
        self._not_renewed = _Series(
            Gauge(
                "kms_acme_certificates_not_renewed",
                "Those of them that are past their renewal window, without a later certificate for the same names.",
                of_profile,
                registry=registry,
            )
        )
        self._credentials = _Series(
            Gauge("kms_acme_eab_credentials", "EABCredentials by state.", ("state",), registry=registry)
        )

    def show(self, inventory: Inventory) -> None:
        """Show these values."""
        self._authorities.show(inventory.authorities)
        self._certificates.show(inventory.certificates)
        self._not_renewed.show(inventory.not_renewed)
        self._credentials.show(inventory.credentials)


class _Series:
    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._children: dict[Labels, Gauge] = {}

    def show(self, values: Mapping[Labels, float]) -> None:
        for labels in [each for each in self._children if each not in values]:
            self._gauge.remove(*labels)
            del self._children[labels]
        for labels, value in values.items():
            child = self._children.get(labels)
            if child is None:
                child = self._children[labels] = self._gauge.labels(*labels)
            child.set(value)
