"""Where the root of a CertificateAuthority is published: `spec.trust`.

ConfigMaps in namespaces of its choice, a Bundle of trust-manager, a ClusterTrustBundle. What they hold follows from the
status of the CA alone (`kms.pki.ca.roots`), so this is a reconciliation of its own, beside the one that keeps
the CA: a namespace that takes no ConfigMap must not keep a CA from being renewed, and what the API server refuses in
one place keeps no other from its certificates.

What is ours carries our label and the UID of the CA; nothing else is ever written to or deleted. `reconcilers.orphans`
removes what outlived its CA.

Who may say what others trust is powerful: whoever may write CertificateAuthorities could have the workloads of another
team trust a CA of his. So the operator's settings say whose roots may go beyond their own namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from kms.pki.ca import Anchors, Former, anchors
from kms.resources.authorities import CertificateAuthority, Trust, TrustBundle, TrustClusterBundle, TrustConfigMap
from kms.resources.durations import parse_duration
from kms.resources.kinds import AUTHORITIES, BUNDLES, CLUSTER_TRUST_BUNDLES, CONFIG_MAPS, Kind
from kms.resources.meta import ObjectMeta, key_of
from kms.resources.secret_names import COMPONENT, MANAGED_BY, MANAGER, OWNER, OWNER_UID, TRUST
from kms_operator.objects import DIGEST, contains, digest, display_name, over, same_metadata
from kms_operator.plan import ConditionUpdate, Manifest, Outcome, Refusal, earliest, merge_conditions, transition_events
from kms_operator.reconcilers.certificate_authority import RESYNC, TRUST_PUBLISHED
from kms_operator.snapshot import SHOWN, Key, Snapshot, belongs_to, describe_owner, is_managed

PUBLISHED = "Published"
NOT_OURS = "NotOurs"
NOT_ALLOWED = "NamespaceNotAllowed"
NO_NAMESPACE = "NoNamespaceSelected"
WAITING = "WaitingForCertificate"
INVALID = "InvalidDuration"
FORBIDDEN = "Forbidden"
REFUSED = "Refused"

ROLE = "the ClusterRole kms-acme-trust (value rbac.trust of the chart)"
"""What lets the operator publish; docs/operations.md tells how to bind it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to publish, and in which shape."""

    kind: Kind[Any]
    namespace: str
    name: str
    field: str
    content: dict[str, Any]

    @property
    def key(self) -> Key:
        """(namespace, name) of the object."""
        return self.namespace, self.name

    def __str__(self) -> str:
        """The object as people write it."""
        return _written(self.kind, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps something from being published: everywhere (no places), or in some."""

    reason: str
    message: str
    places: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write and to remove, in how many places, and what stands in the way of more."""

    objects: tuple[Manifest, ...] = ()
    withdraw: tuple[Manifest, ...] = ()
    places: tuple[Place, ...] = ()
    problems: tuple[Problem, ...] = ()
    trusted: Anchors | None = None
    obstructed: bool = False
    """Whether one of the kinds cannot be had."""


def lookups(authority: CertificateAuthority, snapshot: Snapshot) -> Iterator[tuple[Kind[Any], Key]]:
    """The objects whose absence has to be certain."""
    if authority.spec.trust is None or authority.status.chain is None:
        return
    for each in _wanted(authority, authority.spec.trust, "", snapshot):
        if isinstance(each, Place) and each.kind.plural not in snapshot.unavailable:
            yield each.kind, each.key


def plan(authority: CertificateAuthority, snapshot: Snapshot, *, now: datetime) -> Plan:
    """What to make, to follow, and to clean up."""
    section = authority.spec.trust
    if section is None:
        return Plan(withdraw=_left(authority, snapshot, ()))
    try:
        trusted = _trusted(authority, section, now=now)
    except ValueError as error:
        return Plan(problems=(Problem(INVALID, f"spec.trust.overlap: {error}"),))
    wanted = tuple(_wanted(authority, section, trusted.pem if trusted else "", snapshot))
    places = tuple(each for each in wanted if isinstance(each, Place))
    problems = [each for each in wanted if isinstance(each, Problem)]
    if trusted is None:
        message = "the CA has no certificate yet; see its condition Ready"
        return Plan(withdraw=_left(authority, snapshot, places), problems=(Problem(WAITING, message),))
    objects: list[Manifest] = []
    for place in places:
        found = _in_place(place, authority, snapshot)
        if isinstance(found, Manifest):
            objects.append(found)
        elif found is not None:
            problems.append(found)
    return Plan(
        objects=tuple(objects),
        withdraw=_left(authority, snapshot, places),
        places=places,
        problems=tuple(problems),
        trusted=trusted,
        obstructed=any(each.kind.plural in snapshot.unavailable for each in places),
    )


def conclude(authority: CertificateAuthority, made: Plan, refusals: Sequence[Refusal], *, now: datetime) -> Outcome:
    """What to state once the plan was carried out, but for what the API server has refused."""
    old = authority.status.conditions
    problems = (*made.problems, *map(_refused, refusals))
    update = _verdict(made, problems) if authority.spec.trust is not None or problems else None
    conditions = merge_conditions(
        old,
        () if update is None else (update,),
        generation=authority.metadata.generation,
        now=now,
        keep={each.type for each in old} - {TRUST_PUBLISHED},
    )
    return Outcome(
        status=msgspec.structs.replace(authority.status, conditions=conditions),
        # That a new CA has to be made first is no news.
        events=transition_events(old, update) if update is not None and update.reason != WAITING else (),
        again=earliest(now + RESYNC if problems else None, made.trusted.until if made.trusted else None),
    )


def _trusted(authority: CertificateAuthority, section: Trust, *, now: datetime) -> Anchors | None:
    """Raises ValueError where the overlap is no duration."""
    former = [Former(each.certificate, each.replaced_at) for each in authority.status.former_roots]
    return anchors(authority.status.chain, former, overlap=parse_duration(section.overlap), now=now)


def _wanted(authority: CertificateAuthority, section: Trust, pem: str, snapshot: Snapshot) -> Iterator[Place | Problem]:
    if section.config_map is not None:
        yield from _config_maps(authority, section.config_map, pem, snapshot)
    clusterwide = []
    if section.bundle is not None:
        clusterwide.append(_bundle(section.bundle, pem))
    if section.cluster_trust_bundle is not None:
        clusterwide.append(_cluster_trust_bundle(section.cluster_trust_bundle, pem, snapshot))
    if not clusterwide:
        return
    if snapshot.settings.watch_namespaces:
        message = "the operator watches some namespaces only (--watch-namespace); use spec.trust.configMap alone"
        yield Problem(NOT_ALLOWED, message)
    elif not snapshot.settings.publishes_beyond(authority.metadata.namespace):
        yield _not_beyond(authority)
    else:
        yield from clusterwide


def _config_maps(
    authority: CertificateAuthority, section: TrustConfigMap, pem: str, snapshot: Snapshot
) -> Iterator[Place | Problem]:
    home, rule = authority.metadata.namespace, section.namespaces
    if rule.from_ == "Same":
        chosen = [home]
    elif snapshot.settings.publishes_beyond(home):
        chosen = snapshot.chosen(rule, of=home)
    else:
        yield _not_beyond(authority)
        return
    if not chosen:
        yield Problem(NO_NAMESPACE, "no namespace is selected (spec.trust.configMap.namespaces)")
    for namespace in chosen:
        yield Place(CONFIG_MAPS, namespace, section.name, "data", {section.key: pem})


def _not_beyond(authority: CertificateAuthority) -> Problem:
    namespace = authority.metadata.namespace
    return Problem(
        NOT_ALLOWED,
        f"roots of namespace {namespace} may be published in that namespace only; use spec.trust.configMap with"
        f' "namespaces: {{from: Same}}" alone, or start the operator with --trust-from {namespace}',
    )


def _bundle(section: TrustBundle, pem: str) -> Place:
    target: dict[str, Any] = {"configMap": {"key": section.key}}
    if section.selector is not None:
        target["namespaceSelector"] = msgspec.to_builtins(section.selector)
    return Place(BUNDLES, "", section.name, "spec", {"sources": [{"inLine": pem}], "target": target})


def _cluster_trust_bundle(section: TrustClusterBundle, pem: str, snapshot: Snapshot) -> Place:
    newest = CLUSTER_TRUST_BUNDLES[0]
    kind = snapshot.served.get(newest.plural, newest)
    if section.signer_name is None:
        return Place(kind, "", section.name, "spec", {"trustBundle": pem})
    name = f"{section.signer_name.replace('/', ':')}:{section.name}"
    return Place(kind, "", name, "spec", {"trustBundle": pem, "signerName": section.signer_name})


def _in_place(place: Place, authority: CertificateAuthority, snapshot: Snapshot) -> Manifest | Problem | None:
    """What to write there, what keeps us from it, or None where all is as it should be."""
    unavailability = snapshot.unavailable.get(place.kind.plural)
    if unavailability is not None:
        return Problem(unavailability.reason, unavailability.message, 1)
    existing = snapshot.published(place.kind).get(place.key)
    if existing is not None and not belongs_to(existing, authority):
        return Problem(NOT_OURS, f"{place} {describe_owner(existing)}; delete it, or choose another name", 1)
    metadata = ObjectMeta(
        namespace=place.namespace,
        name=place.name,
        labels={MANAGED_BY: MANAGER, COMPONENT: TRUST, OWNER_UID: authority.metadata.uid},
        annotations={OWNER: display_name(authority, AUTHORITIES), DIGEST: digest(place.content)},
    )
    wanted = place.kind.model(metadata=metadata, **{place.field: place.content})
    if (
        existing is not None
        and same_metadata(existing, wanted)
        and contains(getattr(existing, place.field), place.content)
    ):
        return None
    return Manifest(place.kind, over(wanted, existing))


def _left(authority: CertificateAuthority, snapshot: Snapshot, places: Sequence[Place]) -> tuple[Manifest, ...]:
    """What is ours and is not wanted any more, as far as we see it."""
    keep = {(each.kind.plural, each.key) for each in places}
    return tuple(
        each
        for each in published(snapshot)
        if belongs_to(each.object, authority) and (each.kind.plural, key_of(each.object)) not in keep
    )


def published(snapshot: Snapshot) -> Iterator[Manifest]:
    """All objects of ours that hold roots, of kinds that can be had."""
    newest = CLUSTER_TRUST_BUNDLES[0]
    for kind in (CONFIG_MAPS, BUNDLES, snapshot.served.get(newest.plural, newest)):
        if kind.plural not in snapshot.unavailable:
            yield from (Manifest(kind, each) for each in snapshot.published(kind).values() if is_managed(each))


def _refused(refusal: Refusal) -> Problem:
    place = _written(refusal.manifest.kind, *key_of(refusal.manifest.object))
    said = refusal.message if len(refusal.message) <= SHOWN else f"{refusal.message[:SHOWN]}..."
    if refusal.forbidden:
        return Problem(FORBIDDEN, f"{place}: {said}; where a right is missing, give the operator {ROLE}", 1)
    return Problem(REFUSED, f"{place}: {said}", 1)


def _written(kind: Kind[Any], namespace: str, name: str) -> str:
    """An object as people write it."""
    return f"{kind.kind} {namespace}/{name}".replace(" /", " ")


def _verdict(made: Plan, problems: Sequence[Problem]) -> ConditionUpdate:
    """One condition for all places: how many there are, and the first problem."""
    count = made.trusted.count if made.trusted else 0
    what = "1 certificate is" if count == 1 else f"{count} certificates are"
    if not problems:
        return ConditionUpdate("True", PUBLISHED, f"{what} published in {_summary(made.places)}", TRUST_PUBLISHED)
    first, others = problems[0], len({each.message for each in problems}) - 1
    message = f"{first.message} (and {others} more)" if others else first.message
    missing = sum(each.places for each in problems)
    if made.places:
        message += f"; {what} published in {len(made.places) - missing} of {len(made.places)} places"
    return ConditionUpdate("False", first.reason, message, TRUST_PUBLISHED)


def _summary(places: Sequence[Place]) -> str:
    """`ConfigMap example in 3 namespaces and Bundle example`."""
    maps = [each for each in places if each.kind is CONFIG_MAPS]
    parts = [str(each) for each in places if each.kind is not CONFIG_MAPS]
    if maps:
        namespaces = "1 namespace" if len(maps) == 1 else f"{len(maps)} namespaces"
        parts.insert(0, f"ConfigMap {maps[0].name} in {namespaces}")
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:]))) or "no place"
