"""cert-manager's ClusterIssuer and Issuer (cert-manager.io/v1)."""

from __future__ import annotations

from typing import Any

from kms.resources.meta import ObjectMeta, Struct

GROUP = "cert-manager.io"
VERSION = "v1"


class Issuer(Struct, frozen=True, kw_only=True):
    """An Issuer, or a ClusterIssuer, which has no namespace; `spec` is that of cert-manager, in any version."""

    metadata: ObjectMeta
    spec: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies an empty default
