"""The objects that decide about requests: profiles, policies, CAs, credentials and the labels of namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.resources.authorities import CertificateAuthority
from kms.resources.credentials import EABCredential
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, NAMESPACES, POLICIES, PROFILES, Kind
from kms.resources.meta import Key, Resource, key_of
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile

T = TypeVar("T", bound=Resource)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Objects by namespace and name; `unreadable` says why an object of a kind does not fit its model.

    `namespaces` has the labels of those that are known. With `offline`, the objects are manifests: no operator has
    looked at them.
    """

    profiles: Mapping[Key, CertificateProfile] = field(default_factory=dict)
    policies: Mapping[Key, CertificatePolicy] = field(default_factory=dict)
    authorities: Mapping[Key, CertificateAuthority] = field(default_factory=dict)
    credentials: Mapping[Key, EABCredential] = field(default_factory=dict)
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unreadable: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    offline: bool = False

    @classmethod
    def of(cls, objects: Iterable[tuple[Kind[Any], Any]], *, offline: bool) -> Configuration:
        """The configuration that these objects are; labels come from Namespaces."""
        found: dict[str, dict[Key, Any]] = {}
        labels: dict[str, Mapping[str, str]] = {}
        for kind, each in objects:
            if kind is NAMESPACES:
                labels[each.metadata.name] = each.metadata.labels
            else:
                found.setdefault(kind.plural, {})[key_of(each)] = each
        return cls(
            profiles=found.get(PROFILES.plural, {}),
            policies=found.get(POLICIES.plural, {}),
            authorities=found.get(AUTHORITIES.plural, {}),
            credentials=found.get(CREDENTIALS.plural, {}),
            namespaces=labels,
            offline=offline,
        )


async def read_configuration(cluster: Cluster, namespace: str, credentials: Iterable[Key] = ()) -> Configuration:
    """What decides about requests to the profiles of one namespace, with these credentials. Raises ClusterError.

    A credential that does not exist is left out, and so are the labels of namespaces that may not be read.
    """
    unreadable: dict[tuple[str, str, str], str] = {}

    async def objects(kind: Kind[T]) -> list[tuple[Kind[Any], Any]]:
        listing = await cluster.list(kind, namespace)
        for each in listing.unreadable:
            unreadable[kind.kind, each.metadata.namespace, each.metadata.name] = str(each)
        return [(kind, each) for each in listing.items]

    async def one(kind: Kind[T], namespace: str, name: str) -> list[tuple[Kind[Any], Any]]:
        try:
            return [(kind, await cluster.get(kind, namespace, name))]
        except (errors.NotFound, errors.Forbidden):
            return []

    keys = tuple(credentials)
    namespaces = {each for each, _ in keys}
    parts = await asyncio.gather(
        objects(PROFILES),
        objects(POLICIES),
        objects(AUTHORITIES),
        *(one(CREDENTIALS, *key) for key in keys),
        *(one(NAMESPACES, "", each) for each in sorted(namespaces)),
    )
    named = await asyncio.gather(
        *(
            one(NAMESPACES, "", each.spec.client_namespace)
            for part in parts
            for kind, each in part
            if kind is CREDENTIALS and each.spec.client_namespace not in {None, *namespaces}
        )
    )
    found = Configuration.of((each for part in (*parts, *named) for each in part), offline=False)
    return Configuration(
        found.profiles,
        found.policies,
        found.authorities,
        found.credentials,
        found.namespaces,
        unreadable,
    )
