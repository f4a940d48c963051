"""What the server reads all the time: copies of the configuration kinds and of the release namespace's Secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acme_server.accounts.eab_credentials import UID_INDEX, by_uid
from acme_server.metrics import Metrics
from acme_server.settings import ServerSettings
from acme_server.tasks import Work
from acme_server.unvalidated_profiles import UnvalidatedProfiles
from acme_server.wiring import Configuration
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.resources import Secret
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, ENDPOINT_SLICES, POLICIES, PROFILES, SECRETS
from kms.resources.secret_names import COMPONENT

_SERVICE_NAME = "kubernetes.io/service-name"
"""The label by which an EndpointSlice says whose endpoints it holds."""

LOST_AFTER = 15.0
"""Seconds without a watch after which the server is not ready: a restart of the API server is shorter."""


class Informers:
    """The informers. Of Secrets, those of ours alone, in the release namespace alone."""

    def __init__(
        self, settings: ServerSettings, cluster: Cluster, *, on_secret: Callable[[Secret, bool], None]
    ) -> None:
        namespaces = settings.watch_namespaces
        self.authorities = Informer(cluster, AUTHORITIES, namespaces=namespaces)
        self.policies = Informer(cluster, POLICIES, namespaces=namespaces)
        self.skipping = UnvalidatedProfiles()
        self.profiles = Informer(cluster, PROFILES, namespaces=namespaces, on_change=self.skipping.seen)
        self.credentials = Informer(cluster, CREDENTIALS, namespaces=namespaces, indexes={UID_INDEX: by_uid})
        self.secrets = Informer(
            cluster, SECRETS, namespaces=(settings.namespace,), labels=COMPONENT, on_change=on_secret
        )
        self.replicas = (
            Informer(
                cluster,
                ENDPOINT_SLICES,
                namespaces=(settings.namespace,),
                labels=f"{_SERVICE_NAME}={settings.peer_service}",
            )
            if settings.peer_service
            else None
        )
        informers: dict[str, Informer[Any] | None] = {
            AUTHORITIES.plural: self.authorities,
            POLICIES.plural: self.policies,
            PROFILES.plural: self.profiles,
            CREDENTIALS.plural: self.credentials,
            SECRETS.plural: self.secrets,
            ENDPOINT_SLICES.plural: self.replicas,
        }
        self._informers = {plural: informer for plural, informer in informers.items() if informer is not None}

    @property
    def configuration(self) -> Configuration:
        """What the services work with."""
        return Configuration(
            profiles=self.profiles,
            policies=self.policies,
            authorities=self.authorities,
            credentials=self.credentials,
            secrets=self.secrets,
        )

    @property
    def works(self) -> dict[str, Work]:
        """What keeps them current."""
        return {f"informer of {plural}": informer.run for plural, informer in self._informers.items()}

    @property
    def conditions(self) -> dict[str, Callable[[], bool]]:
        """What a server has to wait for before it knows its configuration, and before it knows it again."""
        lists = {f"the list of {plural}": informer.synced.is_set for plural, informer in self._informers.items()}
        return lists | {"word from the API server": self._hears}

    def _hears(self) -> bool:
        return all(informer.interrupted() < LOST_AFTER for informer in self._informers.values())

    def watched_by(self, metrics: Metrics) -> None:
        """Let `metrics` tell their sizes and ages, and how many profiles skip the validation of ownership."""
        metrics.watch_unvalidated_profiles(self.skipping.count)
        for plural, informer in self._informers.items():
            metrics.watch_cache(plural, informer.values().__len__, informer.last_activity)
