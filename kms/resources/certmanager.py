"""cert-manager's ClusterIssuer and Issuer (cert-manager.io/v1), and issuers of other groups."""

from __future__ import annotations

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
