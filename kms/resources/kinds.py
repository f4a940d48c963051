"""The kinds: group, version, plural and model, for the API client and informers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from kms.resources import certmanager, signing_requests, trust
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.certificate_chains import CertificateChain
from kms.resources.core import ConfigMap, EndpointSlice, Lease, Namespace, Secret
from kms.resources.credentials import EABCredential
from kms.resources.meta import GROUP, VERSION, Resource
from kms.resources.orders import ACMEOrder
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms.resources.revocations import RevocationRecord

T = TypeVar("T", bound=Resource)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A resource of the Kubernetes API and the model that its objects decode to."""

    group: str
    version: str
    kind: str
    plural: str
    model: type[T]
    namespaced: bool = True

    def __post_init__(self) -> None:
        """Prepare the model for decoding.

        msgspec does that when it first decodes a type, and another thread that decodes the same type meanwhile crashes
        the process (msgspec 0.22). Where the kind is made, no other thread has it yet.
        """
        msgspec.json.Decoder(self.model)

    @property
    def api_version(self) -> str:
        """`v1` or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def kinds(self) -> str:
        """Several of the kind, in a sentence: `CertificatePolicies`."""
        return f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"


def _ours(kind: str, plural: str, model: type[T]) -> Kind[T]:
    return Kind(group=GROUP, version=VERSION, kind=kind, plural=plural, model=model)


AUTHORITIES = _ours("CertificateAuthority", "certificateauthorities", CertificateAuthority)
POLICIES = _ours("CertificatePolicy", "certificatepolicies", CertificatePolicy)
PROFILES = _ours("CertificateProfile", "certificateprofiles", CertificateProfile)
CREDENTIALS = _ours("EABCredential", "eabcredentials", EABCredential)
ACCOUNTS = _ours("ACMEAccount", "acmeaccounts", ACMEAccount)
ORDERS = _ours("ACMEOrder", "acmeorders", ACMEOrder)
CERTIFICATE_CHAINS = _ours("CertificateChain", "certificatechains", CertificateChain)
REVOCATION_RECORDS = _ours("RevocationRecord", "revocationrecords", RevocationRecord)

CLUSTER_ISSUERS = Kind(
    group=certmanager.GROUP,
    version=certmanager.VERSION,
    kind="ClusterIssuer",
    plural="clusterissuers",
    model=certmanager.Issuer,
    namespaced=False,
)
ISSUERS = Kind(
    group=certmanager.GROUP, version=certmanager.VERSION, kind="Issuer", plural="issuers", model=certmanager.Issuer
)
CERTIFICATE_REQUESTS = Kind(
    group=certmanager.GROUP,
    version=certmanager.VERSION,
    kind="CertificateRequest",
    plural="certificaterequests",
    model=certmanager.CertificateRequest,
)
SIGNING_REQUESTS = Kind(
    group=signing_requests.GROUP,
    version=signing_requests.VERSION,
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    model=signing_requests.CertificateSigningRequest,
    namespaced=False,
)

BUNDLES = Kind(
    group=trust.BUNDLE_GROUP,
    version=trust.BUNDLE_VERSION,
    kind="Bundle",
    plural="bundles",
    model=trust.Bundle,
    namespaced=False,
)
CLUSTER_TRUST_BUNDLES = tuple(
    Kind(
        group=trust.CERTIFICATES_GROUP,
        version=each,
        kind="ClusterTrustBundle",
        plural="clustertrustbundles",
        model=trust.ClusterTrustBundle,
        namespaced=False,
    )
    for each in trust.CERTIFICATES_VERSIONS
)
"""One kind for each version that an API server may serve."""

SECRETS = Kind(group="", version="v1", kind="Secret", plural="secrets", model=Secret)
CONFIG_MAPS = Kind(group="", version="v1", kind="ConfigMap", plural="configmaps", model=ConfigMap)
NAMESPACES = Kind(group="", version="v1", kind="Namespace", plural="namespaces", model=Namespace, namespaced=False)
LEASES = Kind(group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", model=Lease)
ENDPOINT_SLICES = Kind(
    group="discovery.k8s.io", version="v1", kind="EndpointSlice", plural="endpointslices", model=EndpointSlice
)
