"""Takes the snapshot: reads objects, asks for the rights of both identities, and tries the URLs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
from cryptography import x509

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.contract import Program, lease_name, service_account_name
from kms.resources.core import Lease, Secret
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, LEASES, ORDERS, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import ObjectMeta, Resource, Struct
from kms.resources.secret_names import (
    CA_CERTIFICATE,
    MANAGED_BY,
    MANAGER,
    TLS_CERTIFICATE,
    serving_authority_name,
    serving_secret_name,
)
from kms_acme.check import CheckFailed, check
from kms_acme.doctor.snapshot import DEFINITIONS, Definition, Right, Snapshot

T = TypeVar("T", bound=Resource)

PROGRAMS: tuple[Program, ...] = ("operator", "server")
_URL_SECONDS = 10.0
_AT_ONCE = 16


class _ResourceAttributes(Struct, frozen=True, kw_only=True):
    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    namespace: str = ""


class _ReviewSpec(Struct, frozen=True, kw_only=True):
    user: str
    resource_attributes: _ResourceAttributes
    groups: tuple[str, ...] = ()


class _ReviewStatus(Struct, frozen=True, kw_only=True):
    allowed: bool = False


class _Review(Struct, frozen=True, kw_only=True):
    spec: _ReviewSpec
    metadata: ObjectMeta = ObjectMeta()
    status: _ReviewStatus = _ReviewStatus()


_REVIEWS = Kind(
    group="authorization.k8s.io",
    version="v1",
    kind="SubjectAccessReview",
    plural="subjectaccessreviews",
    model=_Review,
    namespaced=False,
)


def wanted_definitions(manifests: Iterable[Mapping[str, Any]]) -> tuple[Definition, ...]:
    """The kinds among the manifests of this program."""
    wanted = (each for each in manifests if each["kind"] == "CustomResourceDefinition")
    return tuple(msgspec.convert(each, Definition) for each in wanted)


def needed_rights(manifests: Iterable[Mapping[str, Any]], *, release: str) -> Iterator[Right]:
    """The rights of both programs in the roles of this program's manifests."""
    objects = list(manifests)
    bindings = [each for each in objects if each["kind"] in {"ClusterRoleBinding", "RoleBinding"}]
    rules = {(each["kind"], each["metadata"]["name"]): each["rules"] for each in objects if each.get("rules")}
    accounts = {service_account_name(each): each for each in PROGRAMS}
    for binding in bindings:
        for subject in binding.get("subjects", ()):
            program = accounts.get(subject.get("name", ""))
            if program is None:
                continue
            namespace = release if binding["kind"] == "RoleBinding" else ""
            for rule in rules.get((binding["roleRef"]["kind"], binding["roleRef"]["name"]), ()):
                if rule.get("resourceNames"):
                    continue  # a review would have to name each of them
                for group in rule.get("apiGroups", ()):
                    for resource in rule.get("resources", ()):
                        for verb in rule["verbs"]:
                            yield Right(program, verb, group, resource, namespace)


async def refused_rights(cluster: Cluster, rights: Iterable[Right], users: Mapping[str, str]) -> tuple[Right, ...]:
    """Those of the rights that a program lacks; `users` are the names of its identities. Raises ClusterError."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def is_allowed(right: Right) -> bool:
        resource, _, subresource = right.resource.partition("/")
        attributes = _ResourceAttributes(
            verb=right.verb, group=right.group, resource=resource, subresource=subresource, namespace=right.namespace
        )
        async with slots:
            user = users[right.program]
            spec = _ReviewSpec(user=user, groups=_groups(user), resource_attributes=attributes)
            answer = await cluster.create(_REVIEWS, _Review(spec=spec))
        return answer.status.allowed

    asked = tuple(dict.fromkeys(rights))
    answers = await asyncio.gather(*map(is_allowed, asked))
    return tuple(right for right, allowed in zip(asked, answers, strict=True) if not allowed)


def _groups(user: str) -> tuple[str, ...]:
    """The groups that every ServiceAccount is in."""
    namespace = user.split(":")[2]
    return "system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"


async def take_snapshot(
    cluster: Cluster,
    *,
    release: str,
    service: str,
    manifests: Iterable[Mapping[str, Any]],
    users: Mapping[str, str],
    try_urls: bool,
) -> Snapshot:
    """What this person may read of the installation. Raises Unavailable and the like, but not Forbidden."""
    objects = list(manifests)
    unread: list[str] = []
    unreadable: list[str] = []

    async def listed(kind: Kind[T], namespace: str | None = None, **selection: Any) -> tuple[T, ...]:
        try:
            listing = await cluster.list(kind, namespace, **selection)
        except (errors.Forbidden, errors.NotFound):
            unread.append(f"{kind.kinds}{f' of namespace {namespace}' if namespace else ''}")
            return ()
        unreadable.extend(
            f"{kind.kind} {each.metadata.namespace}/{each.metadata.name}: {each}" for each in listing.unreadable
        )
        return listing.items

    async def one(kind: Kind[T], name: str) -> T | None:
        try:
            return await cluster.get(kind, release, name)
        except errors.NotFound:
            return None
        except errors.Forbidden:
            unread.append(f"{kind.kind} {release}/{name}")
            return None

    async def rights() -> tuple[Right, ...]:
        try:
            return await refused_rights(cluster, needed_rights(objects, release=release), users)
        except (errors.Forbidden, errors.NotFound):
            unread.append("rights of the two ServiceAccounts (SubjectAccessReviews)")
            return ()

    authorities, policies, profiles, credentials = await asyncio.gather(
        listed(AUTHORITIES), listed(POLICIES), listed(PROFILES), listed(CREDENTIALS)
    )
    definitions, secrets, refused = await asyncio.gather(
        listed(DEFINITIONS), listed(SECRETS, release, labels=f"{MANAGED_BY}={MANAGER}"), rights()
    )
    serving, authority = await asyncio.gather(
        one(SECRETS, serving_secret_name(service)), one(SECRETS, serving_authority_name(service))
    )
    leases: dict[str, Lease | None] = {each: await one(LEASES, lease_name(service, each)) for each in PROGRAMS}
    forbidden = {each for each in PROGRAMS if f"Lease {release}/{lease_name(service, each)}" in unread}
    urls = [each.status.directory_url for each in profiles if each.status.directory_url is not None]
    lists = await _revocation_lists(cluster, profiles) if try_urls else ()
    return Snapshot(
        release=release,
        authorities=authorities,
        policies=policies,
        profiles=profiles,
        credentials=credentials,
        wanted=wanted_definitions(objects),
        definitions=definitions,
        leases={program: lease for program, lease in leases.items() if program not in forbidden},
        secrets=secrets,
        serving_certificate=serving.text(TLS_CERTIFICATE) if serving is not None else None,
        refused=refused,
        broken=await asyncio.to_thread(_try_all, urls, lists, authority) if try_urls else {},
        unreadable=tuple(unreadable),
        unread=tuple(unread),
    )


async def _revocation_lists(cluster: Cluster, profiles: Iterable[Any]) -> tuple[str, ...]:
    """The revocation lists that the latest certificates name, one order of each profile."""
    found = []
    for each in profiles:
        fields = f"status.state=valid,spec.profileRef.name={each.metadata.name}"
        try:
            page = await cluster.page(ORDERS, each.metadata.namespace, fields=fields, limit=1)
        except errors.Forbidden:
            continue
        found += [url for order in page.items for url in _list_urls(order.status.certificate or "")]
    return tuple(dict.fromkeys(found))


def _list_urls(pem: str) -> Iterator[str]:
    try:
        leaf = x509.load_pem_x509_certificate(pem.encode())
        points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (ValueError, x509.ExtensionNotFound):
        return
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier):
                yield name.value


def _try_all(directories: Iterable[str], lists: Iterable[str], authority: Secret | None) -> dict[str, str]:
    """The URLs that do not work, with what is wrong."""
    pem = authority.text(CA_CERTIFICATE) or authority.text(TLS_CERTIFICATE) if authority is not None else None
    broken = {}
    with tempfile.TemporaryDirectory(prefix="kms-acme-doctor-") as folder:
        file = Path(folder) / "ca.crt"
        if pem is not None:
            file.write_text(pem)
        for url in directories:
            try:
                check(url, authority=file if pem is not None else None)
            except CheckFailed as error:
                broken[url] = str(error)
    for url in lists:
        if (problem := _try_list(url)) is not None:
            broken[url] = problem
    return broken


def _try_list(url: str, load: Callable[[bytes], object] = x509.load_der_x509_crl) -> str | None:
    if not url.startswith("http:"):
        return None
    try:
        with urlopen(url, timeout=_URL_SECONDS) as answer:  # noqa: S310 - http alone, see above
            load(answer.read())
    except URLError as error:
        return f"did not answer: {error.reason}"
    except (OSError, ValueError) as error:
        return f"is no revocation list: {error}"
    return None
