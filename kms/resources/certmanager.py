"""cert-manager's ClusterIssuer, Issuer and CertificateRequest (cert-manager.io/v1), and issuers of other groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from kms.resources.authorities import IssuerRef
from kms.resources.meta import FreeForm, ObjectMeta, Struct, check_depth

GROUP = "cert-manager.io"
VERSION = "v1"


class Issuer(Struct, frozen=True, kw_only=True):
    """An Issuer, or a ClusterIssuer, which has no namespace; `spec` is that of cert-manager, in any version."""

    metadata: ObjectMeta
    spec: FreeForm = {}  # noqa: RUF012 - msgspec copies an empty default

    def __post_init__(self) -> None:
        """Raise ValueError for a spec that is nested too deeply."""
        check_depth(self.spec)


class ObservedIssuer(Struct, frozen=True, kw_only=True):
    """An issuer of any group that a CertificateRequest may name, as it is read once: another program defines it."""

    metadata: ObjectMeta
    spec: FreeForm = {}  # noqa: RUF012 - msgspec copies an empty default
    status: FreeForm = {}  # noqa: RUF012 - likewise


class RequestCondition(Struct, frozen=True, kw_only=True):
    """A condition of a request. Only type and status are certain: other controllers write these, too."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None

    @property
    def words(self) -> str:
        """What the condition says to people."""
        return self.message or self.reason or self.type


class CertificateRequestSpec(Struct, frozen=True, kw_only=True):
    """`request` is a CSR in PEM. `duration` is a wish. cert-manager adds who has created the request.

    `is_ca`: the certificate is to be that of a CA.
    """

    request: bytes
    issuer_ref: IssuerRef
    duration: str | None = None
    usages: tuple[str, ...] | None = ()
    is_ca: bool = msgspec.field(default=False, name="isCA")
    username: str | None = None
    uid: str | None = None
    groups: tuple[str, ...] | None = ()
    extra: dict[str, tuple[str, ...]] | None = None


class CertificateRequestStatus(Struct, frozen=True, kw_only=True):
    """`certificate` is PEM: the certificate, then those above it as far as the issuer returns them."""

    conditions: tuple[RequestCondition, ...] | None = ()
    certificate: bytes | None = None
    ca: bytes | None = None
    failure_time: str | None = None


class CertificateRequest(Struct, frozen=True, kw_only=True):
    """A request to an issuer, of cert-manager or of another group. Its spec cannot be changed."""

    metadata: ObjectMeta
    spec: CertificateRequestSpec
    status: CertificateRequestStatus = CertificateRequestStatus()

    def condition(self, type_: str) -> RequestCondition | None:
        """The condition of that type, if it is set."""
        return condition_of(self.status.conditions or (), type_)


def condition_of(conditions: Iterable[RequestCondition], type_: str) -> RequestCondition | None:
    """The condition of that type, if it is set."""
    return next((each for each in conditions if each.type == type_), None)
