"""cert-manager's issuers, ready-made from a profile: `spec.enrollment.acme.certManager`.

Of each place where an issuer is wanted three objects are made, in this order, so that cert-manager finds all that it
needs (it does not retry what was refused):

* an EABCredential beside the profile, which owns it; one a place, so that a namespace can be cut off by itself;
* a copy of its key where cert-manager reads it: beside an Issuer, or in the namespace that it has for
  ClusterIssuers;
* the ClusterIssuer or Issuer, with the directory, the key identifier and what to trust there.

What is ours carries our label and the UID of the profile; nothing else is ever written to or deleted. Owner references
do not cross namespaces, so `kms_operator.reconcilers.orphans` removes what outlived its profile.

An issuer beyond the profile's own namespace is more than a profile may be worth: its solvers name Secrets there, which
cert-manager reads with its own rights. So the operator's settings say whose profiles may have one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kms.contract import directory_url
from kms.resources.certmanager import Issuer
from kms.resources.core import Secret
from kms.resources.credentials import CredentialSpec, EABCredential
from kms.resources.kinds import CLUSTER_ISSUERS, CREDENTIALS, ISSUERS, PROFILES, SECRETS, Kind
from kms.resources.meta import NamespacedRef, ObjectMeta, Resource, key_of
from kms.resources.profiles import CertificateProfile, CertManager
from kms.resources.secret_names import COMPONENT, EAB_SECRET, ISSUER_KEY, MANAGED_BY, MANAGER, OWNER, OWNER_UID
from kms_operator.endpoints import trust_anchor
from kms_operator.objects import (
    DIGEST,
    contains,
    digest,
    display_name,
    internal_secret,
    over,
    reference_to,
    same_metadata,
)
from kms_operator.plan import ConditionUpdate, Manifest, secrets_to_write
from kms_operator.reconcilers.eab_keys import BindingKey, InvalidKey, key_in
from kms_operator.snapshot import Key, Snapshot, belongs_to, describe_owner, is_owned_by

T = TypeVar("T", bound=Resource)

CERT_MANAGER_ISSUER = "CertManagerIssuer"
ISSUED = "Issued"
NOT_OURS = "NotOurs"
NOT_ALLOWED = "NamespaceNotAllowed"
NO_NAMESPACE = "NoNamespaceSelected"
WAITING_FOR_CREDENTIAL = "WaitingForCredential"

LONGEST_PROFILE = 150
"""Characters of the profile's name in the name of a credential; that of a namespace has 63 at most."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an issuer is wanted, and the namespace in which cert-manager reads the Secrets of it."""

    kind: Kind[Issuer]
    namespace: str
    name: str
    secrets: str

    @property
    def key(self) -> Key:
        """(namespace, name) of the issuer."""
        return self.namespace, self.name

    @property
    def secret(self) -> Key:
        """(namespace, name) of the copy of the key."""
        return self.secrets, f"{self.name}-kms-acme-eab"

    def __str__(self) -> str:
        """The issuer as people write it."""
        return f"{self.kind.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the section asks for: the condition (None where there is no section), and what to write and to remove."""

    update: ConditionUpdate | None = None
    delete: tuple[Secret, ...] = ()
    apply: tuple[Secret, ...] = ()
    withdraw: tuple[Manifest, ...] = ()
    objects: tuple[Manifest, ...] = ()


class _Refused(Exception):
    """Why there is no issuer."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.update = ConditionUpdate("False", reason, message, CERT_MANAGER_ISSUER)


@dataclass(slots=True)
class _Piece:
    """What there is to write for one place, and what stands in the way of the rest."""

    secrets: tuple[Secret, ...] = ()
    objects: tuple[Manifest, ...] = ()
    refusal: _Refused | None = None


def lookups(profile: CertificateProfile, snapshot: Snapshot) -> Iterator[tuple[Kind[Any], Key]]:
    """The objects whose absence has to be certain."""
    try:
        places = _places(profile, snapshot)
    except _Refused:
        return
    for place in places:
        if place.kind.plural in snapshot.unavailable:
            continue
        yield place.kind, place.key
        if _binds(profile):
            yield CREDENTIALS, _credential_key(profile, place)
            yield SECRETS, place.secret


def wanted(profile: CertificateProfile, snapshot: Snapshot) -> Wanted:
    """What to make, to follow, and to clean up."""
    try:
        places = _places(profile, snapshot)
    except _Refused as refusal:
        return _without(profile, snapshot, (), update=refusal.update)
    if not places:
        return _without(profile, snapshot, ())
    unavailability = snapshot.unavailable.get(places[0].kind.plural)
    if unavailability is not None:
        update = ConditionUpdate("False", unavailability.reason, unavailability.message, CERT_MANAGER_ISSUER)
        return _without(profile, snapshot, places, update=update)
    pieces = [_piece(profile, place, snapshot) for place in places]
    refusals = [each.refusal for each in pieces if each.refusal is not None]
    return _without(
        profile,
        snapshot,
        places,
        update=_summed_up(places, refusals),
        apply=tuple(secret for each in pieces for secret in each.secrets),
        objects=tuple(manifest for each in pieces for manifest in each.objects),
    )


def _summed_up(places: tuple[Place, ...], refusals: list[_Refused]) -> ConditionUpdate:
    """One condition for all places: the first that is missing, or how many there are."""
    more = len(refusals) - 1
    if refusals:
        first = refusals[0].update
        message = f"{first.message} (and {more} more)" if more else first.message
        return ConditionUpdate("False", first.reason, message, CERT_MANAGER_ISSUER)
    others = f" and {len(places) - 1} more are" if len(places) > 1 else " is"
    return ConditionUpdate(
        "True", ISSUED, f"{places[0]}{others} made and kept as this profile says", CERT_MANAGER_ISSUER
    )


def _places(profile: CertificateProfile, snapshot: Snapshot) -> tuple[Place, ...]:
    """Where issuers are wanted: nowhere without the section. Raises _Refused where they may not be."""
    section = profile.cert_manager
    home, settings = profile.metadata.namespace, snapshot.settings
    if section is None:
        return ()
    if section.cluster_issuer is not None:
        if settings.watch_namespaces:
            message = "the operator watches some namespaces only (--watch-namespace); use issuers, not clusterIssuer"
            raise _Refused(NOT_ALLOWED, message)
        _check_reach(profile, snapshot)
        return (Place(CLUSTER_ISSUERS, "", section.cluster_issuer.name, settings.cert_manager_namespace),)
    if section.issuers is None:
        return ()  # the schema wants one of the two
    rule, name = section.issuers.namespaces, section.issuers.name
    if rule.from_ == "Same":
        return (Place(ISSUERS, home, name, home),)
    _check_reach(profile, snapshot)
    chosen = snapshot.chosen(rule, of=home)
    if not chosen:
        raise _Refused(NO_NAMESPACE, "no namespace is selected (spec.enrollment.acme.certManager.issuers.namespaces)")
    return tuple(Place(ISSUERS, each, name, each) for each in chosen)


def _check_reach(profile: CertificateProfile, snapshot: Snapshot) -> None:
    namespace = profile.metadata.namespace
    if not snapshot.settings.reaches_beyond(namespace):
        message = (
            f"profiles of namespace {namespace} may have issuers in that namespace only; use issuers with"
            f' "namespaces: {{from: Same}}", or start the operator with --cluster-issuers-from {namespace}'
        )
        raise _Refused(NOT_ALLOWED, message)


def _piece(profile: CertificateProfile, place: Place, snapshot: Snapshot) -> _Piece:
    """What to write for one place, as far as it goes."""
    piece = _Piece()
    try:
        existing = snapshot.issuers.get(place.key)
        _check_ours(existing, place, str(place), profile)
        key = _bound(profile, place, snapshot, piece) if _binds(profile) else None
        issuer = _issuer(profile, place, key, snapshot)
        if not _same_issuer(existing, issuer):
            piece.objects += (Manifest(place.kind, over(issuer, existing)),)
    except _Refused as refusal:
        piece.refusal = refusal
    return piece


def _bound(profile: CertificateProfile, place: Place, snapshot: Snapshot, piece: _Piece) -> BindingKey:
    """The key for this place. Raises _Refused where there is none yet."""
    existing = snapshot.credentials.get(_credential_key(profile, place))
    credential = _credential(profile, place)
    _check_ours(existing, place, display_name(credential, CREDENTIALS), profile)
    copy = snapshot.secret(*place.secret)
    _check_ours(copy, place, f"Secret {'/'.join(place.secret)}", profile)
    if existing is None or not _same_credential(existing, credential):
        piece.objects += (Manifest(CREDENTIALS, over(credential, existing)),)
    key = _key_of(existing, snapshot) if existing is not None else None
    if key is None:
        name = display_name(credential, CREDENTIALS)
        raise _Refused(WAITING_FOR_CREDENTIAL, f"{place} waits until {name} has a key; see its conditions")
    piece.secrets += secrets_to_write(copy, _copy(profile, place, key))
    return key


def _check_ours(existing: Resource | None, place: Place, name: str, profile: CertificateProfile) -> None:
    """Raise _Refused where somebody else, or another profile, has made it."""
    if existing is not None and not belongs_to(existing, profile):
        raise _Refused(
            NOT_OURS, f"{name} {describe_owner(existing)}, so {place} is not made; delete it, or choose another name"
        )


def _key_of(credential: EABCredential, snapshot: Snapshot) -> BindingKey | None:
    """The key in force, if the Secret that the EABCredential has made already holds it."""
    secret = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    if secret is None or not is_owned_by(secret, credential):
        return None
    try:
        key = key_in(secret)
    except InvalidKey:
        return None  # its own reconciliation mends it, and says so
    return key if key.key_id == credential.status.key_id else None


def _credential(profile: CertificateProfile, place: Place) -> EABCredential:
    namespace, name = _credential_key(profile, place)
    metadata = ObjectMeta(
        namespace=namespace,
        name=name,
        labels=_labels(profile),
        annotations=_annotations(profile),
        owner_references=(reference_to(profile, PROFILES),),
    )
    return EABCredential(metadata=metadata, spec=CredentialSpec(profile_ref=NamespacedRef(name=profile.metadata.name)))


def _credential_key(profile: CertificateProfile, place: Place) -> Key:
    # A name that is cut off may belong to another profile already, which is then said.
    name = profile.metadata.name[:LONGEST_PROFILE].rstrip("-.")
    return profile.metadata.namespace, f"{name}-issuer-{place.secrets}"


def _copy(profile: CertificateProfile, place: Place, key: BindingKey) -> Secret:
    """The HMAC key as cert-manager wants it: unpadded base64url text, without a line break."""
    namespace, name = place.secret
    data = {EAB_SECRET: key.data[EAB_SECRET]}
    return internal_secret(namespace, name, component=ISSUER_KEY, owner=profile, kind=PROFILES, data=data)


def _issuer(profile: CertificateProfile, place: Place, key: BindingKey | None, snapshot: Snapshot) -> Issuer:
    """The issuer as it should be. Without `caBundle` cert-manager trusts what its system does."""
    section = profile.cert_manager or CertManager()
    acme: dict[str, Any] = {
        "server": directory_url(snapshot.settings.external_url, profile.metadata.namespace, profile.metadata.name),
        "privateKeySecretRef": {"name": f"{place.name}-account-key"},
        "solvers": list(section.solvers),
    }
    if section.email is not None:
        acme["email"] = section.email
    if anchor := trust_anchor(snapshot):
        acme["caBundle"] = base64.b64encode(anchor).decode()
    if key is not None:
        reference = {"name": place.secret[1], "key": EAB_SECRET}
        acme["externalAccountBinding"] = {"keyID": key.key_id, "keySecretRef": reference}
    metadata = ObjectMeta(
        namespace=place.namespace,
        name=place.name,
        labels=_labels(profile),
        annotations={**_annotations(profile), DIGEST: digest(acme)},
    )
    return Issuer(metadata=metadata, spec={"acme": acme})


def _labels(profile: CertificateProfile) -> dict[str, str]:
    return {MANAGED_BY: MANAGER, COMPONENT: ISSUER_KEY, OWNER_UID: profile.metadata.uid}


def _annotations(profile: CertificateProfile) -> dict[str, str]:
    return {OWNER: display_name(profile, PROFILES)}


def _same_credential(existing: EABCredential, wanted: EABCredential) -> bool:
    """Limits that an administrator has added are left alone."""
    return same_metadata(existing, wanted) and existing.spec.profile_ref == wanted.spec.profile_ref


def _same_issuer(existing: Issuer | None, wanted: Issuer) -> bool:
    return existing is not None and same_metadata(existing, wanted) and contains(existing.spec, wanted.spec)


def _without(profile: CertificateProfile, snapshot: Snapshot, places: tuple[Place, ...], **more: Any) -> Wanted:
    """With what is ours and is not wanted any more removed, issuers first."""
    keep = {(each.kind.plural, each.key) for each in places}
    bound = places if _binds(profile) else ()
    credentials = {_credential_key(profile, each) for each in bound}
    secrets = {each.secret for each in bound}
    issuers = [
        Manifest(kind, each)
        for each in _ours(profile, snapshot.issuers.values())
        if ((kind := ISSUERS if each.metadata.namespace else CLUSTER_ISSUERS).plural, key_of(each)) not in keep
    ]
    left = [
        Manifest(CREDENTIALS, each)
        for each in _ours(profile, snapshot.credentials.values())
        if key_of(each) not in credentials and each.metadata.labels.get(COMPONENT) == ISSUER_KEY
    ]
    copies = [
        each
        for each in _ours(profile, snapshot.secrets.values())
        if key_of(each) not in secrets and each.metadata.labels.get(COMPONENT) == ISSUER_KEY
    ]
    return Wanted(delete=tuple(copies), withdraw=(*issuers, *left), **more)


def _ours(profile: CertificateProfile, objects: Iterable[T]) -> Iterator[T]:
    return (each for each in objects if belongs_to(each, profile))


def _binds(profile: CertificateProfile) -> bool:
    acme = profile.spec.enrollment.acme
    return acme is not None and acme.external_account_binding != "Disabled"
