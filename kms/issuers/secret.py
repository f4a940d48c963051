"""CAs whose key is in a Secret of the release namespace: internal ones and imported ones.

The operator writes key and certificate there, under a name that follows from the UID of the CertificateAuthority. The
Secret is used only while it holds the certificate that the CertificateAuthority publishes. So nothing is signed during
a renewal, or when another certificate is in the Secret.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from kms.issuers.base import Issued, IssuerNotReady, issued
from kms.pki.ca import InvalidAuthority, load_signer
from kms.pki.certificate import LeafTemplate, Signer, sign_leaf
from kms.pki.crl import ListTemplate, revocation_list
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY


class SecretIssuer:
    """A CA that signs with a key in memory."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    @property
    def not_after(self) -> datetime:
        """The end of the first certificate in the CA's chain to expire."""
        return self._signer.not_after

    @property
    def signs_lists(self) -> bool:
        """Whether the key usage of the CA's certificate allows it to sign revocation lists."""
        return self._signer.signs_lists

    async def sign(self, template: LeafTemplate) -> Issued:
        """Sign; with RSA in a thread, since it takes milliseconds. ECDSA and Ed25519 are faster than a thread.

        Raises ValueError for an invalid template.
        """
        if isinstance(self._signer.key, RSAPrivateKey):
            leaf = await asyncio.to_thread(sign_leaf, template, self._signer)
        else:
            leaf = sign_leaf(template, self._signer)
        return issued(leaf, template, self._signer)

    async def revocation_list(self, template: ListTemplate) -> bytes:
        """Sign a revocation list, in DER; in a thread, since a long one takes a tenth of a second."""
        return await asyncio.to_thread(revocation_list, template, self._signer)


def issuer_from(secret: Secret, authority: CertificateAuthority) -> SecretIssuer:
    """The issuer that signs for `authority` with the key in `secret`.

    Raises IssuerNotReady if the Secret cannot be used, or does not hold the certificate that `authority` publishes.
    """
    name = f"CertificateAuthority {authority.metadata.namespace}/{authority.metadata.name}"
    try:
        signer = load_signer(secret.data.get(TLS_CERTIFICATE, b""), secret.data.get(TLS_PRIVATE_KEY, b""))
    except InvalidAuthority as error:
        raise IssuerNotReady(f"the signing key of {name} cannot be used: {error}") from error
    if signer.certificate != published_certificate(authority):
        raise IssuerNotReady(f"the signing key of {name} does not belong to the certificate in its status")
    return SecretIssuer(signer)


def published_certificate(authority: CertificateAuthority) -> x509.Certificate | None:
    """The certificate in the status; None if there is none that can be read."""
    try:
        return x509.load_pem_x509_certificate((authority.status.certificate or "").encode())
    except ValueError:
        return None
