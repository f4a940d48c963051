"""How to look at the issuers of external CAs: one module for each type of CA."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from kms.cluster.client import Cluster
from kms.resources.orders import AuthorityType
from kms_operator.looks.cert_manager import look_at_issuer
from kms_operator.looks.signer import look_at_signer
from kms_operator.looks.vault import VaultCredentials, VaultLook
from kms_operator.observation import Look
from kms_operator.settings import OperatorSettings


def looks_of(settings: OperatorSettings, cluster: Cluster) -> Mapping[AuthorityType, Look]:
    """Return the look at each type of CA that this operator supports."""
    return {
        "CertManager": partial(look_at_issuer, settings, cluster),
        "Signer": partial(look_at_signer, settings, cluster),
        "Vault": VaultLook(VaultCredentials(settings, cluster)),
    }
