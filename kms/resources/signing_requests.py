"""CertificateSigningRequests of Kubernetes (certificates.k8s.io/v1)."""

from __future__ import annotations

from kms.resources.certmanager import RequestCondition, condition_of
from kms.resources.meta import ObjectMeta, Struct

GROUP = "certificates.k8s.io"
VERSION = "v1"


class SigningRequestSpec(Struct, frozen=True, kw_only=True):
    """`request` is a CSR in PEM. `expiration_seconds` is a wish. The API server adds who has created the request."""

    request: bytes
    signer_name: str
    expiration_seconds: int | None = None
    usages: tuple[str, ...] = ()
    username: str | None = None
    uid: str | None = None
    groups: tuple[str, ...] | None = ()
    extra: dict[str, tuple[str, ...]] | None = None


class SigningRequestStatus(Struct, frozen=True, kw_only=True):
    """`certificate` is PEM: the certificate, then those above it as far as the signer returns them."""

    conditions: tuple[RequestCondition, ...] | None = ()
    certificate: bytes | None = None


class CertificateSigningRequest(Struct, frozen=True, kw_only=True):
    """A request to a signer. It belongs to the cluster, not to a namespace; its spec cannot be changed."""

    metadata: ObjectMeta
    spec: SigningRequestSpec
    status: SigningRequestStatus = SigningRequestStatus()

    def condition(self, type_: str) -> RequestCondition | None:
        """The condition of that type, if it is set."""
        return condition_of(self.status.conditions or (), type_)
