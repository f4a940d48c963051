"""CertificateChain: the certificates above those that a CA issues, stored once for all orders that refer to them.

The name of a chain is the SHA-256 digest of its text. So the name shows whether somebody has changed the text.
"""

from __future__ import annotations

import hashlib
import re

from kms.resources.meta import ObjectMeta, Struct

MAXIMUM_LENGTH = 131_072
"""Characters of a chain, as the schema limits it."""

_END = "-----END CERTIFICATE-----"


class CertificateChainSpec(Struct, frozen=True, kw_only=True):
    """`certificates` are PEM, each certified by the next; the first one has issued certificates. Immutable."""

    certificates: str


class CertificateChain(Struct, frozen=True, kw_only=True):
    """`kchain`: the certificates above those that a CA has issued."""

    metadata: ObjectMeta
    spec: CertificateChainSpec

    @property
    def is_genuine(self) -> bool:
        """Whether it contains what its name says."""
        return chain_name(self.spec.certificates) == self.metadata.name


def chain_name(certificates: str) -> str:
    """The name of the chain with these certificates: the SHA-256 digest of the text, in hexadecimal."""
    return hashlib.sha256(certificates.encode()).hexdigest()


def is_chain_name(name: str) -> bool:
    """Whether a chain may have that name."""
    return re.fullmatch("[0-9a-f]{64}", name) is not None


def split_chain(certificate: str) -> tuple[str, str]:
    """The first certificate of a text in PEM, with a newline at its end, and those that follow it; "" if none do.

    Who edits an object by hand may leave out the newline, or add others.
    """
    first, end, others = certificate.partition(_END)
    return (f"{first}{end}\n", others.lstrip()) if end else (certificate, "")
