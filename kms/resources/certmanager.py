"""cert-manager's ClusterIssuer and Issuer (cert-manager.io/v1)."""

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
