"""Revocation list and certificate of the CA that signs the server's own certificate.

Clients that check revocation ask for both. Nothing is ever revoked by this CA: a server whose key is lost gets another
certificate when its Secret is deleted. So the list is empty, and all replicas sign the same one.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.certificates.crl import DERFile
from acme_server.certificates.revocation_reasons import list_template
from acme_server.problems import NotFound, Unavailable
from kms.clock import Clock
from kms.cluster.informer import Informer
from kms.pki.ca import InvalidAuthority, load_signer
from kms.pki.certificate import Signer
from kms.pki.crl import revocation_list
from kms.resources.core import Secret
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY

_COLD = 2


class ServingAuthority:
    """The CA in the Secret of that name in the release namespace, which the operator makes."""

    def __init__(self, *, secrets: Informer[Secret], namespace: str, name: str, clock: Clock) -> None:
        self._secrets = secrets
        self._key = namespace, name
        self._clock = clock
        self._list: tuple[tuple[str, int], DERFile] | None = None

    def certificate(self) -> DERFile:
        """The CA's certificate. Raises NotFound if there is no such CA, and Unavailable."""
        certificate = self._signer()[1].certificate
        return DERFile.of(certificate.public_bytes(Encoding.DER), last_modified=certificate.not_valid_before_utc)

    def revocation_list(self) -> DERFile:
        """The CA's revocation list of this hour. Raises NotFound if there is no such CA, and Unavailable."""
        version, signer = self._signer()
        template = list_template((), now=self._clock())
        current = version, template.number
        if self._list is None or self._list[0] != current:
            document = DERFile.of(revocation_list(template, signer), last_modified=template.this_update)
            self._list = current, document
        return self._list[1]

    def _signer(self) -> tuple[str, Signer]:
        if not self._secrets.synced.is_set():
            raise Unavailable("The server is still reading its configuration.", _COLD)
        secret = self._secrets.get(*self._key)
        if secret is None and self._secrets.outage_seconds():
            raise Unavailable("The server's configuration may be out of date.", _COLD)
        if secret is None:
            raise NotFound("The server's certificate is not signed by a CA of this installation.")
        try:
            signer = load_signer(secret.data.get(TLS_CERTIFICATE, b""), secret.data.get(TLS_PRIVATE_KEY, b""))
        except InvalidAuthority as error:
            raise Unavailable("The CA of the server's certificate cannot be used.", _COLD) from error
        return secret.metadata.resource_version, signer
