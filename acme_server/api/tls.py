"""The server's own TLS: version 1.2 or later, elliptic curves, and a certificate that can change at any time."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from kms.resources import Secret
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY
from kms.tls_groups import SERVER_GROUPS, restrict_key_exchange

logger = logging.getLogger(__name__)

_LONGEST_RSA_KEY = 3072


class ServingCertificate:
    """A TLS context with the current certificate from a Secret or files.

    Handshakes in progress keep the certificate that they began with. An unusable certificate is logged and ignored.
    """

    def __init__(self) -> None:
        self.context = _context()
        self.loaded = asyncio.Event()
        self._current = b""

    def load(self, certificate: bytes, private_key: bytes, *, source: str) -> None:
        """Use a chain and its key (PEM); `source` names them in the log."""
        pem = certificate + b"\n" + private_key
        if pem == self._current:
            return
        try:
            # First into an unused context: a certificate without its key must not be loaded.
            _load(_context(), pem)
            _load(self.context, pem)
        except (ssl.SSLError, OSError, ValueError) as error:
            logger.error("serving certificate cannot be used", extra={"source": source, "error": str(error)})
            return
        self._current = pem
        self.loaded.set()
        logger.info("serving certificate loaded", extra={"source": source})
        _warn_of_long_key(certificate, source)

    def load_secret(self, secret: Secret) -> None:
        """Use the certificate in a kubernetes.io/tls Secret."""
        source = f"Secret {secret.metadata.namespace}/{secret.metadata.name}"
        certificate, private_key = secret.data.get(TLS_CERTIFICATE), secret.data.get(TLS_PRIVATE_KEY)
        if certificate and private_key:
            self.load(certificate, private_key, source=source)
        else:
            logger.error("serving certificate is incomplete", extra={"source": source})

    async def follow_files(self, certificate: Path, private_key: Path, *, interval: float = 5.0) -> None:
        """Load two files every `interval` seconds. Runs until it is cancelled."""
        while True:
            try:
                pair = await asyncio.to_thread(lambda: (certificate.read_bytes(), private_key.read_bytes()))
            except OSError as error:
                logger.error("serving certificate cannot be read", extra={"error": str(error)})
            else:
                self.load(*pair, source=str(certificate))
            await asyncio.sleep(interval)


def _warn_of_long_key(certificate: bytes, source: str) -> None:
    """Every client can make the server sign with its key: with 4096 bits, that blocks the event loop for 7 ms."""
    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return  # OpenSSL takes more certificates than cryptography
    if isinstance(key, rsa.RSAPublicKey) and key.key_size > _LONGEST_RSA_KEY:
        logger.warning(
            "serving certificate has a long RSA key, which makes TLS handshakes slow; use ECDSA on P-256",
            extra={"source": source, "bits": key.key_size},
        )


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    restrict_key_exchange(context, SERVER_GROUPS)
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a certificate and its key. OpenSSL needs a file; this one is in memory only."""
    descriptor = os.memfd_create("serving-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)


def _no_password() -> str:
    """Fail instead of asking a terminal for the passphrase of an encrypted key."""
    raise ValueError("the private key is encrypted")
