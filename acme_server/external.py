"""How external CAs are asked: by objects of the Kubernetes API, or by calls of Vault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from acme_server.orders.external_issuance import Pace
from acme_server.orders.issuance_waiting import Schedule
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.contract import READY
from kms.issuers.cert_manager import CertManagerIssuer
from kms.issuers.remote import RemoteIssuers
from kms.issuers.request_objects import RequestObjects
from kms.issuers.signer import SignerIssuer
from kms.issuers.vault.issuer import vault_issuer
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.kinds import CERTIFICATE_REQUESTS, SIGNING_REQUESTS
from kms.resources.meta import condition
from kms.resources.orders import AuthorityType


@dataclass(frozen=True, kw_only=True)
class External:
    """The issuers of external CAs, and the requests of theirs that are objects."""

    issuers: RemoteIssuers
    requests: tuple[RequestObjects[Any], ...] = ()
    pace: Pace | None = None
    schedule: Schedule | None = None

    @classmethod
    def build(
        cls,
        cluster: Cluster,
        authorities: Informer[CertificateAuthority],
        *,
        find_secret: Callable[[str, str], Secret | None],
        namespace: str,
        wake: Callable[[str], None],
        pace: Pace | None = None,
        schedule: Schedule | None = None,
    ) -> External:
        """Ask by the API of the cluster, and with the credentials in Secrets of the release namespace, `namespace`.

        `find_secret` returns one by namespace and name. `wake` is called with the name of a request that has changed.
        """
        certificate_requests = RequestObjects(cluster, CERTIFICATE_REQUESTS, on_change=wake)
        signing_requests = RequestObjects(cluster, SIGNING_REQUESTS, on_change=wake)

        def follow(by_type: Mapping[AuthorityType, tuple[CertificateAuthority, ...]]) -> None:
            certificate_requests.watch({each.metadata.namespace for each in by_type.get("CertManager", ())})
            signing_requests.watch({each.metadata.namespace for each in by_type.get("Signer", ())})

        issuers = RemoteIssuers(
            authorities=lambda: filter(_is_admitted, authorities.values()),
            builders={
                "CertManager": lambda authority: CertManagerIssuer(authority, certificate_requests, cluster),
                "Signer": lambda authority: SignerIssuer(authority, signing_requests, cluster),
                "Vault": partial(vault_issuer, find_secret=find_secret, namespace=namespace),
            },
            follow=follow,
        )
        return cls(issuers=issuers, requests=(certificate_requests, signing_requests), pace=pace, schedule=schedule)

    async def close(self) -> None:
        """Close all issuers, and end all watches."""
        for each in self.requests:
            await each.close()
        await self.issuers.close()


def _is_admitted(authority: CertificateAuthority) -> bool:
    """Whether the operator has looked at the CA, and external CAs may be in its namespace."""
    ready = condition(authority.status.conditions, READY)
    return ready is not None and ready.reason != "NamespaceNotAllowed"
