"""The informers: current copies of the configuration, the labels of namespaces and Secrets of the release namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acme_server.accounts.eab_credentials import UID_INDEX, by_uid
from acme_server.certificates.deleted_authorities import OWNER_INDEX, by_owner
from acme_server.metrics import Metrics
from acme_server.namespaces import Namespaces
from acme_server.settings import ServerSettings
from acme_server.tasks import Work
from acme_server.unvalidated_profiles import UnvalidatedProfiles
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.resources import Secret
from kms.resources.authorities import CertificateAuthority
from kms.resources.credentials import EABCredential
from kms.resources.kinds import (
    AUTHORITIES,
    CREDENTIALS,
    ENDPOINT_SLICES,
    NAMESPACES,
    POLICIES,
    PROFILES,
    SECRETS,
)
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms.resources.retained import retained
from kms.resources.secret_names import COMPONENT

_SERVICE_NAME = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its Service."""


class Informers:
    """All informers.

    They hold only Secrets of the release namespace that belong to kms-acme, and of what tenants write only what is in
    force.

    After `patience` seconds without a watch the server is not ready: a restart of the API server takes less.
    """

    def __init__(
        self,
        settings: ServerSettings,
        cluster: Cluster,
        *,
        on_secret: Callable[[Secret, bool], None],
        on_credential: Callable[[EABCredential, bool], None],
        on_profile: Callable[[CertificateProfile, bool], None],
        on_policy: Callable[[CertificatePolicy, bool], None],
        on_authority: Callable[[CertificateAuthority, bool], None],
        patience: float = 15.0,
    ) -> None:
        self._patience = patience
        self._notice_profile = on_profile
        namespaces = settings.watch_namespaces
        self.authorities = Informer(cluster, AUTHORITIES, namespaces=namespaces, on_change=on_authority, keep=retained)
        self.policies = Informer(cluster, POLICIES, namespaces=namespaces, on_change=on_policy, keep=retained)
        self.unvalidated_profiles = UnvalidatedProfiles()
        self.profiles = Informer(cluster, PROFILES, namespaces=namespaces, on_change=self._on_profile, keep=retained)
        self.credentials = Informer(
            cluster,
            CREDENTIALS,
            namespaces=namespaces,
            indexes={UID_INDEX: by_uid},
            on_change=on_credential,
            keep=retained,
        )
        self.secrets = Informer(
            cluster,
            SECRETS,
            namespaces=(settings.namespace,),
            labels=COMPONENT,
            indexes={OWNER_INDEX: by_owner},
            on_change=on_secret,
        )
        self.slices = (
            Informer(
                cluster,
                ENDPOINT_SLICES,
                namespaces=(settings.namespace,),
                labels=f"{_SERVICE_NAME}={settings.peer_service}",
            )
            if settings.peer_service
            else None
        )
        self.namespaces = Namespaces(cluster, names=namespaces)
        informers: dict[str, Informer[Any] | None] = {
            AUTHORITIES.plural: self.authorities,
            POLICIES.plural: self.policies,
            PROFILES.plural: self.profiles,
            CREDENTIALS.plural: self.credentials,
            SECRETS.plural: self.secrets,
            ENDPOINT_SLICES.plural: self.slices,
        }
        self._informers = {plural: informer for plural, informer in informers.items() if informer is not None}

    def _on_profile(self, profile: CertificateProfile, deleted: bool) -> None:  # noqa: FBT001 - the signature of watch callbacks
        self.unvalidated_profiles.update(profile, deleted)
        self._notice_profile(profile, deleted)

    def synced(self) -> bool:
        """Whether everything has been listed once."""
        return all(each.synced.is_set() for each in self._informers.values())

    @property
    def works(self) -> dict[str, Work]:
        """The tasks that keep the copies current."""
        informers = {f"informer of {plural}": informer.run for plural, informer in self._informers.items()}
        return informers | {f"informer of {NAMESPACES.plural}": self.namespaces.run}

    @property
    def conditions(self) -> dict[str, Callable[[], bool]]:
        """What readiness waits for."""
        lists = {f"list of {plural}": informer.synced.is_set for plural, informer in self._informers.items()}
        lists[f"list of {NAMESPACES.plural}"] = self.namespaces.synced.is_set
        return lists | {"contact with the API server": self._is_connected}

    def _is_connected(self) -> bool:
        outages = [informer.outage_seconds() for informer in self._informers.values()]
        return max(*outages, self.namespaces.outage_seconds()) < self._patience

    def report_to(self, metrics: Metrics) -> None:
        """Show sizes and ages of the copies, and the number of unvalidated profiles, as metrics."""
        metrics.watch_unvalidated_profiles(self.unvalidated_profiles.count)
        self.namespaces.report_to(metrics)
        for plural, informer in self._informers.items():
            metrics.watch_cache(plural, informer.values().__len__, informer.idle_seconds)
