"""All of the notifications, wired."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from acme_server.notifications.changes import Changes
from acme_server.notifications.delivery import KEPT, Delivery, Pace, Post
from acme_server.notifications.progress import ProgressStore
from acme_server.notifications.receivers import Receiver, Receivers, receiver_of
from acme_server.notifications.refused import RefusedRequests
from acme_server.server_state import State
from acme_server.settings import ServerSettings
from kms.clock import Clock, Entropy
from kms.cluster.client import Cluster
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.meta import Key
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import notification_key_name


@dataclass(frozen=True, slots=True)
class Notifications:
    """What the leader tells, and the refusals that every replica tells itself."""

    delivery: Delivery
    refused: RefusedRequests

    @classmethod
    def build(
        cls,
        cluster: Cluster,
        settings: ServerSettings,
        *,
        state: State,
        profiles: Callable[[], Collection[CertificateProfile]],
        find_profile: Callable[[str, str], CertificateProfile | None],
        authorities: Callable[[], Collection[CertificateAuthority]],
        find_secret: Callable[[str, str], Secret | None],
        post: Post,
        clock: Clock,
        entropy: Entropy,
        pace: Pace | None = None,
    ) -> Notifications:
        """Wire them. `find_secret` finds one by namespace and name, and `post` sends one event."""

        def find_key(name: str) -> Secret | None:
            return find_secret(settings.namespace, name)

        def is_wanted(profile: Key) -> bool:
            # At the start, orders may be known before their profiles are.
            found = find_profile(*profile)
            return found is None or found.spec.notifications is not None

        def find_receiver(profile: Key) -> Receiver | None:
            found = find_profile(*profile)
            return (
                receiver_of(found, find_key(notification_key_name(found.metadata.uid))) if found is not None else None
            )

        def position(namespace: str) -> int | None:
            version = state.order_feed.version(namespace) if state.order_index.complete else None
            return int(version) if version is not None and version.isdigit() else None

        changes = Changes(state.order_index, is_wanted=is_wanted, clock=clock, kept=KEPT)
        delivery = Delivery(
            find_receivers=Receivers(profiles, authorities, find_key),
            orders=state.orders,
            changes=changes,
            records=state.certificates.records,
            position=position,
            progress=ProgressStore(cluster, settings.namespace, settings.service_name),
            post=post,
            clock=clock,
            random=random.random,
            pace=pace,
        )
        refused = RefusedRequests(find_receiver=find_receiver, post=post, clock=clock, entropy=entropy)
        return cls(delivery, refused)
