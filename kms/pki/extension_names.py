"""Names of extensions and of subject attributes for messages, by object identifier."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_EXTENSIONS: Mapping[str, str] = MappingProxyType(
    {
        "2.5.29.14": "subjectKeyIdentifier",
        "2.5.29.15": "keyUsage",
        "2.5.29.17": "subjectAltName",
        "2.5.29.19": "basicConstraints",
        "2.5.29.30": "nameConstraints",
        "2.5.29.31": "cRLDistributionPoints",
        "2.5.29.32": "certificatePolicies",
        "2.5.29.35": "authorityKeyIdentifier",
        "2.5.29.36": "policyConstraints",
        "2.5.29.37": "extKeyUsage",
        "1.3.6.1.5.5.7.1.1": "authorityInfoAccess",
        "1.3.6.1.5.5.7.1.24": "tlsfeature, OCSP must-staple",
        "1.3.6.1.4.1.311.20.2": "certificate template of Microsoft",
        "1.3.6.1.4.1.311.21.7": "certificate template of Microsoft",
        "2.16.840.1.113730.1.1": "certificate type of Netscape",
        "2.16.840.1.113730.1.13": "comment of Netscape",
    }
)


def extension_name(oid: str) -> str:
    """`2.5.29.17 (subjectAltName)`, or the object identifier alone where the name is not known."""
    name = _EXTENSIONS.get(oid)
    return oid if name is None else f"{oid} ({name})"
