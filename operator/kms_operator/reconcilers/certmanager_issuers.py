"""Makes cert-manager's issuers for a profile: `spec.enrollment.acme.certManager`.

Each issuer needs three objects, written in this order, so that cert-manager finds all that it needs (it does not retry
what was refused):

* an EABCredential in the profile's namespace, owned by the profile; one for each place, so that access can be revoked
  for one namespace alone;
* a copy of its key where cert-manager reads it: beside an Issuer, or in the namespace for Secrets of ClusterIssuers;
* the ClusterIssuer or Issuer, with the directory, the key identifier and the CA to trust there.

These objects carry the operator's label and the UID of the profile; the operator never writes to or deletes any other
object. Owner references do not cross namespaces, so `kms_operator.reconcilers.orphans` deletes what outlived its
profile.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from kms.contract import directory_url
from kms.resources.certmanager import Issuer
from kms.resources.credentials import CredentialSpec, EABCredential
from kms.resources.kinds import CLUSTER_ISSUERS, CREDENTIALS, ISSUERS, PROFILES, SECRETS
from kms.resources.meta import NamespacedRef
from kms.resources.profiles import CertificateProfile, CertManager
from kms.resources.retained import FREE_FORM_OCTETS, SOLVERS_TOO_LARGE
from kms.resources.secret_names import DIGEST, EAB_SECRET, ISSUER_KEY
from kms_operator.endpoints import trust_anchor
from kms_operator.objects import (
    contains,
    digest,
    has_metadata_of,
    internal_secret,
    is_owned_by,
    over,
    owned_metadata,
    reference_to,
    secret_changes,
)
from kms_operator.plan import ConditionUpdate, Manifest, Refusal
from kms_operator.reconcilers.eab_keys import BindingKey, InvalidKey, key_in
from kms_operator.reconcilers.placement import (
    Placement,
    PlacementRefused,
    Reach,
    check_available,
    find_leftovers,
    find_own,
    left_out,
    plan_each,
    refused_placement,
    select_namespaces,
    summarize,
)
from kms_operator.snapshot import Read, Snapshot

CERT_MANAGER_ISSUER = "CertManagerIssuer"
ISSUED = "Issued"
WAITING_FOR_CREDENTIAL = "WaitingForCredential"

SECTION = "spec.enrollment.acme.certManager"
_SOLVERS = re.compile(r"\.?\bspec\.acme\.solvers\b")
"""How the API server and cert-manager name the solvers of an issuer."""

MAX_PROFILE_NAME = 150
"""Characters of the profile's name in the name of a credential; the name of a namespace has 63 at most."""


@dataclass(frozen=True, slots=True)
class _Issuance:
    """The placements of an issuer, its credential and the copy of the key."""

    issuer: Placement
    credential: Placement
    copy: Placement


@dataclass(frozen=True, slots=True)
class IssuersPlan:
    """The part of a profile's plan that is about issuers; `success` is None without any."""

    success: tuple[str, str] | None
    refused: tuple[PlacementRefused, ...] = ()
    delete: tuple[Manifest, ...] = ()
    apply: tuple[Manifest, ...] = ()

    def condition(self, refusals: Iterable[Refusal] = ()) -> ConditionUpdate | None:
        """Return the condition, given what the API server has refused; None if there is nothing to say."""
        written = {id(each) for each in (*self.delete, *self.apply)}
        refused = (*self.refused, *(_refused(each) for each in refusals if id(each.manifest) in written))
        if self.success is None and not refused:
            return None
        return summarize(CERT_MANAGER_ISSUER, refused, success=self.success or ("", ""))


def reads(profile: CertificateProfile, snapshot: Snapshot) -> Iterator[Read]:
    """The objects that may be there already."""
    try:
        issuances = _choose(profile, snapshot)
    except PlacementRefused:
        return
    for each in issuances:
        if snapshot.unavailable(each.issuer.kind) is None:
            bound = (each.credential, each.copy) if _binds(profile) else ()
            yield from (Read(place.kind, place.namespace, place.name, optional=True) for place in (each.issuer, *bound))


def plan_issuers(profile: CertificateProfile, snapshot: Snapshot) -> IssuersPlan:
    """Write missing and changed objects, delete obsolete ones, and report whether the issuers exist."""
    try:
        issuances = _choose(profile, snapshot)
    except PlacementRefused as refused:
        return IssuersPlan(None, (refused,), _leftovers(profile, snapshot, ()))
    leftovers = _leftovers(profile, snapshot, issuances)
    if not issuances:
        return IssuersPlan(None, delete=leftovers)
    apply, refusals = plan_each(issuances, partial(_plan_one, profile, snapshot))
    others = f" and {len(issuances) - 1} more are" if len(issuances) > 1 else " is"
    success = ISSUED, f"{issuances[0].issuer}{others} up to date{_left_out(profile, issuances)}"
    return IssuersPlan(success, tuple(refusals), leftovers, tuple(apply))


def _left_out(profile: CertificateProfile, issuances: Iterable[_Issuance]) -> str:
    section = profile.cert_manager
    if section is None or section.issuers is None:
        return ""
    namespaces = {each.issuer.namespace for each in issuances}
    home, field = profile.metadata.namespace, f"{SECTION}.issuers.namespaces"
    return left_out(section.issuers.namespaces, namespaces, home=home, field=field)


def _refused(refusal: Refusal) -> PlacementRefused:
    """Return what the condition says; the solvers of an issuer are those of the profile."""
    refused = refused_placement(refusal)
    return PlacementRefused(refused.reason, _SOLVERS.sub(f"{SECTION}.solvers", refused.message))


def _choose(profile: CertificateProfile, snapshot: Snapshot) -> tuple[_Issuance, ...]:
    """Return where issuers are wanted: nowhere without the section. Raises PlacementRefused for forbidden places."""
    section, home = profile.cert_manager, profile.metadata.namespace
    if section is None:
        return ()
    reach = Reach(
        beyond=snapshot.settings.reaches_beyond(home),
        only_here=f"profiles of namespace {home} may have issuers in that namespace only; use issuers with"
        f' "namespaces: {{from: Same}}", or start the operator with --cluster-issuers-from {home}'
        " (in the chart certManager.clusterIssuersFrom)",
        namespaced_only="use issuers, not clusterIssuer",
    )
    if section.cluster_issuer is not None:
        reach.check_cluster(snapshot)
        issuer = Placement(CLUSTER_ISSUERS, "", section.cluster_issuer.name)
        return (_issuance(profile, issuer, secrets=snapshot.settings.cert_manager_namespace),)
    if section.issuers is None:
        return ()  # the schema requires one of the two
    field = f"{SECTION}.issuers.namespaces"
    namespaces = select_namespaces(section.issuers.namespaces, reach, home=home, field=field, snapshot=snapshot)
    return tuple(
        _issuance(profile, Placement(ISSUERS, each, section.issuers.name), secrets=each) for each in namespaces
    )


def _issuance(profile: CertificateProfile, issuer: Placement, *, secrets: str) -> _Issuance:
    """`secrets` is the namespace in which cert-manager reads the Secrets of this issuer."""
    # A truncated name may belong to another profile already; find_own then refuses it.
    name = profile.metadata.name[:MAX_PROFILE_NAME].rstrip("-.")
    return _Issuance(
        issuer,
        Placement(CREDENTIALS, profile.metadata.namespace, f"{name}-issuer-{secrets}"),
        Placement(SECRETS, secrets, f"{issuer.name}-kms-acme-eab"),
    )


def _leftovers(
    profile: CertificateProfile, snapshot: Snapshot, issuances: tuple[_Issuance, ...]
) -> tuple[Manifest, ...]:
    """Return the issuers that are no longer wanted, then their credentials and keys."""
    bound = issuances if _binds(profile) else ()
    keep = {
        *(each.issuer for each in issuances),
        *(placement for each in bound for placement in (each.credential, each.copy)),
    }
    return find_leftovers(profile, snapshot, (CLUSTER_ISSUERS, ISSUERS, CREDENTIALS, SECRETS), ISSUER_KEY, keep=keep)


def _plan_one(profile: CertificateProfile, snapshot: Snapshot, issuance: _Issuance) -> Iterator[Manifest]:
    """Write credential, copy and issuer, as far as they can be written yet."""
    if profile.cert_manager is not None and profile.cert_manager.solvers == SOLVERS_TOO_LARGE:
        message = f"{SECTION}.solvers takes more than {FREE_FORM_OCTETS} bytes; shorten it"
        raise PlacementRefused("SolversTooLarge", message)
    check_available(issuance.issuer, snapshot)
    existing = find_own(issuance.issuer, profile, snapshot)
    key = None
    if _binds(profile):
        current: EABCredential | None = find_own(issuance.credential, profile, snapshot)
        copy = find_own(issuance.copy, profile, snapshot)
        credential = _credential(profile, issuance)
        if current is None or not _is_current(current, credential):
            yield Manifest(CREDENTIALS, over(credential, current))
        key = _key_of(current, snapshot) if current is not None else None
        if key is None:
            message = f"{issuance.issuer} waits until {issuance.credential} has a key; see its conditions"
            raise PlacementRefused(WAITING_FOR_CREDENTIAL, message)
        yield from secret_changes(
            copy,
            internal_secret(
                *issuance.copy.key,
                component=ISSUER_KEY,
                owner=profile,
                kind=PROFILES,
                # As cert-manager wants it: unpadded base64url text without a line break.
                data={EAB_SECRET: key.data[EAB_SECRET]},
            ),
        )
    issuer = _issuer(profile, issuance, key, snapshot)
    if existing is None or not has_metadata_of(existing, issuer) or not contains(existing.spec, issuer.spec):
        yield Manifest(issuance.issuer.kind, over(issuer, existing))


def _key_of(credential: EABCredential, snapshot: Snapshot) -> BindingKey | None:
    """Return the valid key, if the Secret of the EABCredential has it already."""
    secret = snapshot.secret(credential.metadata.namespace, credential.secret_name)
    if secret is None or not is_owned_by(secret, credential):
        return None
    try:
        key = key_in(secret)
    except InvalidKey:
        return None  # the reconciler of the credential corrects and reports it
    return key if key.key_id == credential.status.key_id else None


def _credential(profile: CertificateProfile, issuance: _Issuance) -> EABCredential:
    """Build the credential of an issuer. It names the clients: those of one namespace, or of all."""
    metadata = owned_metadata(
        *issuance.credential.key,
        component=ISSUER_KEY,
        owner=profile,
        kind=PROFILES,
        owner_references=(reference_to(profile, PROFILES),),
    )
    namespace = issuance.issuer.namespace
    spec = CredentialSpec(
        profile_ref=NamespacedRef(name=profile.metadata.name),
        client_namespace=namespace or None,
        shared=not namespace,
    )
    return EABCredential(metadata=metadata, spec=spec)


def _is_current(existing: EABCredential, wanted: EABCredential) -> bool:
    """Whether the credential need not be written; limits that an administrator has added may stay."""
    owned = ("profile_ref", "client_namespace", "shared")
    return has_metadata_of(existing, wanted) and all(
        getattr(existing.spec, field) == getattr(wanted.spec, field) for field in owned
    )


def _issuer(profile: CertificateProfile, issuance: _Issuance, key: BindingKey | None, snapshot: Snapshot) -> Issuer:
    """Build the issuer. Without `caBundle`, cert-manager trusts what its system trusts."""
    section = profile.cert_manager or CertManager()
    acme: dict[str, Any] = {
        "server": directory_url(snapshot.settings.external_url, profile.metadata.namespace, profile.metadata.name),
        "privateKeySecretRef": {"name": f"{issuance.issuer.name}-account-key"},
        "solvers": list(section.solvers),
    }
    if section.email is not None:
        acme["email"] = section.email
    if anchor := trust_anchor(snapshot):
        acme["caBundle"] = base64.b64encode(anchor).decode()
    if key is not None:
        reference = {"name": issuance.copy.name, "key": EAB_SECRET}
        acme["externalAccountBinding"] = {"keyID": key.key_id, "keySecretRef": reference}
    metadata = owned_metadata(
        *issuance.issuer.key,
        component=ISSUER_KEY,
        owner=profile,
        kind=PROFILES,
        annotations={DIGEST: digest(acme)},
    )
    return Issuer(metadata=metadata, spec={"acme": acme})


def _binds(profile: CertificateProfile) -> bool:
    acme = profile.spec.enrollment.acme
    return acme is not None and acme.external_account_binding != "Disabled"
