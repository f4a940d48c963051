"""Kinds that hold roots for the whole cluster: Bundle of trust-manager, and ClusterTrustBundle of Kubernetes."""

from __future__ import annotations

from kms.resources.meta import FreeForm, ObjectMeta, Struct, check_depth

BUNDLE_GROUP = "trust.cert-manager.io"
BUNDLE_VERSION = "v1alpha1"

CERTIFICATES_GROUP = "certificates.k8s.io"
CERTIFICATES_VERSIONS = ("v1", "v1beta1", "v1alpha1")
"""The versions that may serve ClusterTrustBundles, which are the same in all; the newest first."""


class Bundle(Struct, frozen=True, kw_only=True):
    """A Bundle of trust-manager; `spec` is that of trust-manager, in any version."""

    metadata: ObjectMeta
    spec: FreeForm = {}  # noqa: RUF012 - msgspec copies an empty default

    def __post_init__(self) -> None:
        """Raise ValueError for a spec that is nested too deeply."""
        check_depth(self.spec)


class ClusterTrustBundle(Struct, frozen=True, kw_only=True):
    """A ClusterTrustBundle: `spec` holds `trustBundle` and, where it belongs to a signer, `signerName`."""

    metadata: ObjectMeta
    spec: FreeForm = {}  # noqa: RUF012 - likewise

    def __post_init__(self) -> None:
        """Raise ValueError for a spec that is nested too deeply."""
        check_depth(self.spec)
