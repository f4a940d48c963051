"""Publishes the root of a CertificateAuthority where `spec.trust` says.

ConfigMaps in selected namespaces, a Bundle of trust-manager, a ClusterTrustBundle. Their contents follow from the
status of the CA and what proves it (`served_profiles`), so this is a reconciler of its own, beside the one that keeps
the CA: a namespace that refuses a ConfigMap must not stop the renewal of a CA.

Published objects carry the operator's label and the UID of the CA; the operator never writes to or deletes any other
object. `reconcilers.orphans` deletes what outlived its CA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from kms.clock import Entropy
from kms.contract import TRUST_PUBLISHED, WAITING_FOR_CERTIFICATE
from kms.pki.ca import Anchors, anchors
from kms.resources.authorities import CertificateAuthority, Trust
from kms.resources.durations import parse_duration
from kms.resources.kinds import AUTHORITIES, BUNDLES, CLUSTER_TRUST_BUNDLES, CONFIG_MAPS, Kind
from kms.resources.meta import condition
from kms.resources.secret_names import DIGEST, TRUST, signing_key_name
from kms_operator.objects import contains, digest, has_metadata_of, over, owned_metadata
from kms_operator.plan import (
    ConditionUpdate,
    Manifest,
    Plan,
    Refusal,
    earliest,
    merge_conditions,
    transition_events,
)
from kms_operator.reconcilers.placement import (
    Placement,
    PlacementRefused,
    Reach,
    check_available,
    find_leftovers,
    find_own,
    left_out,
    plan_each,
    recheck_interval,
    refused_placement,
    select_namespaces,
    summarize,
)
from kms_operator.reconcilers.served_profiles import proven_chain, proven_former_roots
from kms_operator.snapshot import Read, Snapshot

PUBLISHED = "Published"
WAITING = WAITING_FOR_CERTIFICATE
INVALID = "InvalidDuration"

ROLE = "the ClusterRole kms-acme-trust (in the chart <fullname>-trust, with the value rbac.trust or operator.trustFrom)"
"""What lets the operator publish; docs/operations.md tells how to bind it."""


def published_kinds(snapshot: Snapshot) -> tuple[Kind[Any], ...]:
    """Return the kinds that hold roots, ClusterTrustBundles in the version that the API server serves."""
    return CONFIG_MAPS, BUNDLES, snapshot.served_version(CLUSTER_TRUST_BUNDLES[0])


@dataclass(frozen=True, slots=True)
class _Publication:
    """Where a root is wanted, and why it cannot be published at some or all of these places."""

    placements: Sequence[Placement] = ()
    refused: Sequence[PlacementRefused] = ()
    missing: int = 0
    trusted: Anchors | None = None
    left_out: str = ""

    def report(self, authority: CertificateAuthority, now: datetime, refusals: Sequence[Refusal] = ()) -> Plan:
        """State the condition, given what the API server has refused."""
        hint = f"if a permission is missing, give the operator {ROLE}"
        refused = (*self.refused, *(refused_placement(each, hint=hint) for each in refusals))
        old = authority.status.conditions
        updates = [] if authority.spec.trust is None and not refused else [self._condition(refused, len(refusals))]
        conditions = merge_conditions(
            old,
            updates,
            generation=authority.metadata.generation,
            now=now,
            keep={each.type for each in old} - {TRUST_PUBLISHED},
        )
        return Plan(
            status=msgspec.structs.replace(authority.status, conditions=conditions),
            # Every new CA waits for its certificate first: not worth an Event.
            events=tuple(event for each in updates if each.reason != WAITING for event in transition_events(old, each)),
            requeue_at=earliest(
                now + recheck_interval(refused) if refused else None, self.trusted.until if self.trusted else None
            ),
        )

    def _condition(self, refused: Sequence[PlacementRefused], refusals: int) -> ConditionUpdate:
        count = self.trusted.count if self.trusted else 0
        what = "1 certificate is" if count == 1 else f"{count} certificates are"
        success = f"{what} published in {_list_places(self.placements)}{self.left_out}"
        update = summarize(TRUST_PUBLISHED, refused, success=(PUBLISHED, success))
        if not refused or not self.placements:
            return update
        total = len(self.placements)
        suffix = f"; {what} published in {total - self.missing - refusals} of {total} places"
        return replace(update, message=update.message + suffix)


def reads(authority: CertificateAuthority, snapshot: Snapshot) -> Iterator[Read]:
    """The objects that may be there already."""
    if authority.spec.trust is not None and authority.status.chain is not None:
        placements, _ = _choose(authority, authority.spec.trust, snapshot)
        served = (each for each in placements if snapshot.unavailable(each.kind) is None)
        yield from (Read(each.kind, each.namespace, each.name, optional=True) for each in served)


def plan(authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:  # noqa: ARG001 - all reconcilers are called alike
    """Write missing and changed objects, delete obsolete ones, and report where the root is published."""
    section = authority.spec.trust
    apply: Sequence[Manifest] = ()
    placements: Sequence[Placement] = ()
    publication = _Publication()
    if section is not None:
        try:
            trusted = _anchors(authority, section, snapshot, now=now)
        except ValueError as error:
            refused = PlacementRefused(INVALID, f"spec.trust.overlap: {error}")
            return _Publication(refused=(refused,)).report(authority, now)
        placements, out_of_reach = _choose(authority, section, snapshot)
        if trusted is None:
            waiting = PlacementRefused(WAITING, "the CA has no certificate yet; see its condition Ready")
            publication = _Publication(refused=(waiting,))
        else:
            apply, missing = plan_each(placements, partial(_plan_one, authority, section, trusted.pem, snapshot))
            refused_places = (*out_of_reach, *missing)
            home = _left_out(authority, section, placements)
            publication = _Publication(placements, refused_places, len(missing), trusted, home)
    unavailable = any(snapshot.unavailable(each.kind) for each in publication.placements)
    return replace(
        publication.report(authority, now),
        delete=find_leftovers(authority, snapshot, published_kinds(snapshot), TRUST, keep=placements),
        apply=tuple(apply),
        on_refusals=partial(publication.report, authority, now),
        check_optional_kinds=unavailable and condition(authority.status.conditions, TRUST_PUBLISHED) is None,
    )


def _anchors(authority: CertificateAuthority, section: Trust, snapshot: Snapshot, *, now: datetime) -> Anchors | None:
    """Return what to publish; None without a certificate. Raises ValueError if the overlap is no duration."""
    secret = snapshot.internal_secret(signing_key_name(authority.metadata.uid))
    former, overlap = proven_former_roots(authority, secret), parse_duration(section.overlap)
    return anchors(proven_chain(authority, snapshot), former, overlap=overlap, now=now)


def _choose(
    authority: CertificateAuthority, section: Trust, snapshot: Snapshot
) -> tuple[list[Placement], list[PlacementRefused]]:
    """Return where the root is wanted, and the places where it must not be published."""
    placements: list[Placement] = []
    refused: list[PlacementRefused] = []
    for choose in (_config_maps, _cluster_scoped):
        try:
            placements += choose(authority, section, snapshot)
        except PlacementRefused as error:
            refused.append(error)
    return placements, refused


def _config_maps(authority: CertificateAuthority, section: Trust, snapshot: Snapshot) -> list[Placement]:
    if section.config_map is None:
        return []
    namespaces = select_namespaces(
        section.config_map.namespaces,
        _reach(authority, snapshot),
        home=authority.metadata.namespace,
        field="spec.trust.configMap.namespaces",
        snapshot=snapshot,
    )
    return [Placement(CONFIG_MAPS, each, section.config_map.name) for each in namespaces]


def _left_out(authority: CertificateAuthority, section: Trust, placements: Sequence[Placement]) -> str:
    if section.config_map is None:
        return ""
    namespaces = {each.namespace for each in placements if each.kind is CONFIG_MAPS}
    rule, home = section.config_map.namespaces, authority.metadata.namespace
    return left_out(rule, namespaces, home=home, field="spec.trust.configMap.namespaces") if namespaces else ""


def _cluster_scoped(authority: CertificateAuthority, section: Trust, snapshot: Snapshot) -> list[Placement]:
    placements = []
    _, bundles, cluster_trust_bundles = published_kinds(snapshot)
    if section.bundle is not None:
        placements.append(Placement(bundles, "", section.bundle.name))
    if (cluster := section.cluster_trust_bundle) is not None:
        # Kubernetes wants the name of the signer as prefix.
        prefix = f"{cluster.signer_name.replace('/', ':')}:" if cluster.signer_name is not None else ""
        placements.append(Placement(cluster_trust_bundles, "", f"{prefix}{cluster.name}"))
    if placements:
        _reach(authority, snapshot).check_cluster(snapshot)
    return placements


def _reach(authority: CertificateAuthority, snapshot: Snapshot) -> Reach:
    namespace = authority.metadata.namespace
    return Reach(
        beyond=snapshot.settings.publishes_beyond(namespace),
        only_here=f"roots of namespace {namespace} may be published in that namespace only; use spec.trust.configMap"
        f' with "namespaces: {{from: Same}}" alone, or start the operator with --trust-from {namespace}'
        " (in the chart operator.trustFrom)",
        namespaced_only="use spec.trust.configMap alone",
    )


def _plan_one(
    authority: CertificateAuthority, section: Trust, pem: str, snapshot: Snapshot, placement: Placement
) -> Iterator[Manifest]:
    check_available(placement, snapshot)
    existing = find_own(placement, authority, snapshot)
    field, content = _content(placement, section, pem)
    metadata = owned_metadata(
        *placement.key,
        component=TRUST,
        owner=authority,
        kind=AUTHORITIES,
        annotations={DIGEST: digest(content)},
    )
    wanted = placement.kind.model(metadata=metadata, **{field: content})
    if existing is None or not has_metadata_of(existing, wanted) or not contains(getattr(existing, field), content):
        yield Manifest(placement.kind, over(wanted, existing))


def _content(placement: Placement, section: Trust, pem: str) -> tuple[str, dict[str, Any]]:
    """Return the field of the object that holds the root, and its contents."""
    if placement.kind is CONFIG_MAPS and section.config_map is not None:
        return "data", {section.config_map.key: pem}
    if placement.kind is BUNDLES and section.bundle is not None:
        target: dict[str, Any] = {"configMap": {"key": section.bundle.key}}
        if section.bundle.selector is not None:
            target["namespaceSelector"] = msgspec.to_builtins(section.bundle.selector)
        return "spec", {"sources": [{"inLine": pem}], "target": target}
    signer = section.cluster_trust_bundle.signer_name if section.cluster_trust_bundle is not None else None
    return "spec", {"trustBundle": pem, **({"signerName": signer} if signer is not None else {})}


def _list_places(placements: Sequence[Placement]) -> str:
    """`ConfigMap example in 3 namespaces and Bundle example`."""
    maps = [each for each in placements if each.kind is CONFIG_MAPS]
    parts = [str(each) for each in placements if each.kind is not CONFIG_MAPS]
    if maps:
        namespaces = "1 namespace" if len(maps) == 1 else f"{len(maps)} namespaces"
        parts.insert(0, f"ConfigMap {maps[0].name} in {namespaces}")
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
