"""Signers of Kubernetes: names that nothing describes, so that they cannot be asked.

Those of cert-manager are an exception: their name says which issuer signs.
"""

from __future__ import annotations

import re

from kms.cluster.client import Cluster
from kms.resources import certmanager
from kms.resources.authorities import CertificateAuthority, IssuerRef
from kms_operator.looks.cert_manager import observe_issuer
from kms_operator.observation import Observation
from kms_operator.settings import OperatorSettings

NOT_OBSERVABLE = "NotObservable"
_CLUSTER_ISSUER = re.compile(r"clusterissuers\.cert-manager\.io/(?P<name>.+)")
_ISSUER = re.compile(r"issuers\.cert-manager\.io/(?P<namespace>[^.]+)\.(?P<name>.+)")


async def look_at_signer(
    settings: OperatorSettings,
    cluster: Cluster,
    authority: CertificateAuthority,
    last: Observation | None,  # noqa: ARG001 - all looks are called alike
) -> Observation:
    """Look at the issuer of cert-manager behind the signer, if there is one: it may loop, or not be ready.

    Whether a signer works shows only when it signs. Raises Unavailable if the API server does not answer.
    """
    signer = authority.spec.external.signer if authority.spec.external is not None else None
    name = signer.name if signer is not None else ""
    ref = _issuer_of(name, authority.metadata.namespace)
    found = await observe_issuer(settings, cluster, ref, authority.metadata.namespace) if ref is not None else None
    if found is not None and found.status == "False":
        return found
    return Observation(
        "Unknown", NOT_OBSERVABLE, f"Kubernetes does not tell whether signer {name} exists; the first order shows it"
    )


def _issuer_of(signer: str, namespace: str) -> IssuerRef | None:
    """Return the issuer of cert-manager that signs; None for other signers, and for issuers of other namespaces.

    What those say of themselves is not for the readers of this namespace.
    """
    if found := _CLUSTER_ISSUER.fullmatch(signer):
        return IssuerRef(name=found["name"], kind="ClusterIssuer", group=certmanager.GROUP)
    if (found := _ISSUER.fullmatch(signer)) and found["namespace"] == namespace:
        return IssuerRef(name=found["name"], group=certmanager.GROUP)
    return None
