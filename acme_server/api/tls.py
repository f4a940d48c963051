"""The server's own TLS: at least 1.2, and a certificate that is replaced while connections go on."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

from kms.resources import Secret
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY

logger = logging.getLogger(__name__)

_LOOK_AT_FILES = 5.0


class ServingCertificate:
    """A TLS context whose certificate comes from the Secret or the files that hold it now.

    Handshakes in progress keep the certificate that they began with. What cannot be used is logged and changes nothing.
    """

    def __init__(self) -> None:
        self.context = _context()
        self.loaded = asyncio.Event()
        self._current = b""

    def load(self, certificate: bytes, private_key: bytes, *, source: str) -> None:
        """Take a chain and its key (PEM) into use; `source` names them in the log."""
        pem = certificate + b"\n" + private_key
        if pem == self._current:
            return
        try:
            # First into a context that nobody uses: half a change would be worse than none.
            _load(_context(), pem)
            _load(self.context, pem)
        except (ssl.SSLError, OSError, ValueError) as error:
            logger.error("serving certificate cannot be used", extra={"source": source, "error": str(error)})
            return
        self._current = pem
        self.loaded.set()
        logger.info("serving certificate loaded", extra={"source": source})

    def load_secret(self, secret: Secret) -> None:
        """Take the certificate in a kubernetes.io/tls Secret into use."""
        source = f"Secret {secret.metadata.namespace}/{secret.metadata.name}"
        certificate, private_key = secret.data.get(TLS_CERTIFICATE), secret.data.get(TLS_PRIVATE_KEY)
        if certificate and private_key:
            self.load(certificate, private_key, source=source)
        else:
            logger.error("serving certificate is incomplete", extra={"source": source})

    async def follow_files(self, certificate: Path, private_key: Path) -> None:
        """Load two files, and again when they have changed. Runs until it is cancelled."""
        while True:
            try:
                pair = await asyncio.to_thread(lambda: (certificate.read_bytes(), private_key.read_bytes()))
            except OSError as error:
                logger.error("serving certificate cannot be read", extra={"error": str(error)})
            else:
                self.load(*pair, source=str(certificate))
            await asyncio.sleep(_LOOK_AT_FILES)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give `context` the certificate and key in `pem`. OpenSSL wants a file; this one never touches a disk."""
    descriptor = os.memfd_create("serving-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)


def _no_password() -> str:
    """Answer in place of a terminal, which OpenSSL would ask where a key is encrypted."""
    raise ValueError("the private key is encrypted")
