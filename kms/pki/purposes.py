"""The purposes for which clients take certificates below a CA: extendedKeyUsage of the CAs of a chain.

RFC 5280 gives the extension no meaning in CA certificates, but OpenSSL, Go and Windows let it limit the certificates
below: a certificate counts for a purpose only if every CA above has it too, or no extendedKeyUsage at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from kms.pki.quoting import quoted
from kms.pki.usages import EXTENDED_KEY_USAGES


def forbidden_usages(usages: Collection[str], chain: Iterable[x509.Certificate]) -> dict[str, str]:
    """The usages (`server auth`) that a CA of the chain does not permit, each with the subject of that CA, quoted."""
    forbidden: dict[str, str] = {}
    for certificate in chain:
        try:
            permitted = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        except x509.ExtensionNotFound:
            continue
        if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in permitted:
            continue
        holder = quoted(certificate.subject.rfc4514_string())
        for usage in sorted(set(usages) & EXTENDED_KEY_USAGES.keys()):
            if EXTENDED_KEY_USAGES[usage] not in permitted:
                forbidden.setdefault(usage, holder)
    return forbidden
