"""Issuers that cert-manager's CertificateRequests may name: of cert-manager itself, and of any other group.

All of them tell by a condition Ready whether they can sign. Everything else is read as far as it is what it should be:
the kinds belong to other programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from kms.cluster.client import Cluster
from kms.cluster.errors import Forbidden, NotFound, Undecodable, Unserved
from kms.resources import certmanager
from kms.resources.authorities import CertificateAuthority, IssuerRef
from kms.resources.certmanager import ObservedIssuer
from kms.resources.kinds import CLUSTER_ISSUERS, ISSUERS, Kind
from kms_operator.observation import Observation, foreign
from kms_operator.plan import FORBIDDEN
from kms_operator.settings import OperatorSettings

NOT_INSTALLED = "CertManagerNotInstalled"
ISSUER_NOT_FOUND = "IssuerNotFound"
ISSUER_NOT_READY = "IssuerNotReady"
ISSUER_LOOPS = "IssuerLoops"
ISSUER_UNSUITABLE = "IssuerUnsuitable"
ISSUER_READY = "IssuerReady"

_PORTS = {"https": 443, "http": 80}


async def look_at_issuer(
    settings: OperatorSettings,
    cluster: Cluster,
    authority: CertificateAuthority,
    last: Observation | None,  # noqa: ARG001 - all looks are called alike
) -> Observation:
    """Read the issuer that the CA refers to. Raises Unavailable if the API server does not answer."""
    external = authority.spec.external
    section = external.cert_manager if external is not None else None
    if section is None:
        return Observation("False", ISSUER_NOT_FOUND, "spec.external.certManager is not set")
    return await observe_issuer(settings, cluster, section.issuer_ref, authority.metadata.namespace)


async def observe_issuer(settings: OperatorSettings, cluster: Cluster, ref: IssuerRef, namespace: str) -> Observation:
    """Read an issuer; one with a namespace is in `namespace`. Raises Unavailable."""
    kind = await _find_kind(cluster, ref)
    if isinstance(kind, Observation):
        return kind
    what = _name(ref, kind, namespace)
    issuer = await _read(cluster, ref, kind, namespace, what=what)
    return issuer if isinstance(issuer, Observation) else judge(ref, issuer, settings, what=what)


def judge(ref: IssuerRef, issuer: ObservedIssuer, settings: OperatorSettings, *, what: str) -> Observation:
    """Return what the issuer says of itself, or why it is not to be used. `what` names it for people."""
    if ref.group == certmanager.GROUP and "selfSigned" in issuer.spec:
        return Observation(
            "False",
            ISSUER_UNSUITABLE,
            f"{what} is self-signed: it signs with the key of whoever asks, which the server never has; use an issuer"
            " with a CA",
            is_definite=True,
        )
    acme = issuer.spec.get("acme")
    server = acme.get("server") if isinstance(acme, Mapping) else None
    if isinstance(server, str) and _leads_here(server, settings):
        return Observation(
            "False",
            ISSUER_LOOPS,
            f"{what} is an ACME issuer of this server ({foreign(server)}), so each order would make another one; use"
            " an issuer of another CA",
            is_definite=True,
        )
    return _readiness(issuer, what)


def _readiness(issuer: ObservedIssuer, what: str) -> Observation:
    conditions = issuer.status.get("conditions")
    candidates = conditions if isinstance(conditions, list) else []
    found = next((each for each in candidates if isinstance(each, Mapping) and each.get("type") == "Ready"), None)
    if found is None:
        return Observation(
            "False", ISSUER_NOT_READY, f"{what} has no condition Ready yet; its controller may not be running"
        )
    generation = found.get("observedGeneration")
    if isinstance(generation, int) and 0 < generation < issuer.metadata.generation:
        return Observation(
            "False", ISSUER_NOT_READY, f"{what} was changed, and its controller has not looked at it since"
        )
    if found.get("status") == "True":
        return Observation("True", ISSUER_READY, f"{what} is ready")
    words = foreign(": ".join(str(found[each]) for each in ("reason", "message") if found.get(each)))
    return Observation("False", ISSUER_NOT_READY, f"{what} is not ready: {words}" if words else f"{what} is not ready")


async def _find_kind(cluster: Cluster, ref: IssuerRef) -> Kind[ObservedIssuer] | Observation:
    """Return the kind of the issuer, or why there is none."""
    if ref.group == certmanager.GROUP:
        known: Kind[Any] = CLUSTER_ISSUERS if ref.kind == CLUSTER_ISSUERS.kind else ISSUERS
        return Kind(known.group, known.version, known.kind, known.plural, ObservedIssuer, known.namespaced)
    try:
        found = await cluster.discover(ref.group, ref.kind, ObservedIssuer)
    except Forbidden:
        return Observation("Unknown", FORBIDDEN, _grant(ref, f"{ref.kind.lower()}s"))
    return _not_served(ref) if found is None else found


async def _read(
    cluster: Cluster, ref: IssuerRef, kind: Kind[ObservedIssuer], namespace: str, *, what: str
) -> ObservedIssuer | Observation:
    """Return the issuer, or why it cannot be read."""
    try:
        return await cluster.get(kind, namespace if kind.namespaced else "", ref.name)
    except Forbidden:
        return Observation("Unknown", FORBIDDEN, _grant(ref, kind.plural))
    except Unserved:
        return _not_served(ref)
    except NotFound:
        return Observation("False", ISSUER_NOT_FOUND, f"{what} does not exist; create it")
    except Undecodable:
        return Observation("False", ISSUER_NOT_READY, f"{what} cannot be read")


def _not_served(ref: IssuerRef) -> Observation:
    if ref.group == certmanager.GROUP:
        return Observation(
            "False", NOT_INSTALLED, "the API server does not serve cert-manager's issuers; install cert-manager"
        )
    return Observation(
        "False",
        ISSUER_NOT_FOUND,
        f"the API server serves no kind {ref.kind} of group {ref.group}; install that issuer, or create another"
        " CertificateAuthority with the right kind and group",
    )


def _grant(ref: IssuerRef, plural: str) -> str:
    return (
        f"the operator may not read {plural} of {ref.group}, so it does not know whether {ref.name} is ready; to allow"
        f" it, bind a ClusterRole with the verb get on {plural}.{ref.group} to its ServiceAccount"
    )


def _name(ref: IssuerRef, kind: Kind[Any], namespace: str) -> str:
    """`ClusterIssuer corporate`, `Issuer pki/corporate`; with the group if it is another one than cert-manager.io."""
    path = f"{namespace}/{ref.name}" if kind.namespaced else ref.name
    group = "" if ref.group == certmanager.GROUP else f" ({ref.group})"
    return f"{ref.kind} {path}{group}"


def _leads_here(server: str, settings: OperatorSettings) -> bool:
    """Whether the URL of an ACME server has our host and port, or is that of our Service inside of the cluster."""
    there, here = _authority_of(server), _authority_of(settings.external_url)
    if there is None:
        return False
    service = f"{settings.service_name}.{settings.namespace}"
    return there == here or there[0] == service or there[0].startswith(f"{service}.svc")


def _authority_of(url: str) -> tuple[str, int] | None:
    """Return host and port; None for what is no URL."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return ((parts.hostname or "").rstrip("."), port) if port is not None and parts.hostname else None
