"""Distinguished names, attribute by attribute, under the names that manifests use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import NameOID

COMMON_NAME = "commonName"
ATTRIBUTES: Mapping[str, x509.ObjectIdentifier] = MappingProxyType(
    {
        "countries": NameOID.COUNTRY_NAME,
        "provinces": NameOID.STATE_OR_PROVINCE_NAME,
        "localities": NameOID.LOCALITY_NAME,
        "organizations": NameOID.ORGANIZATION_NAME,
        "organizationalUnits": NameOID.ORGANIZATIONAL_UNIT_NAME,
    }
)
"""The attributes of a subject beside its common name, in their order in certificates: the widest first."""

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "countries": 2,
        "provinces": 128,
        "localities": 128,
        "organizations": 64,
        "organizationalUnits": 64,
        COMMON_NAME: 64,
    }
)
"""Upper bounds of RFC 5280, appendix A.1, in characters; cryptography counts a common name in bytes of UTF-8."""

_NAMES: Mapping[str, str] = MappingProxyType(
    {oid.dotted_string: name for name, oid in ATTRIBUTES.items()}
    | {
        NameOID.COMMON_NAME.dotted_string: COMMON_NAME,
        "0.9.2342.19200300.100.1.1": "userId",
        "0.9.2342.19200300.100.1.25": "domainComponent",
        "1.2.840.113549.1.9.1": "emailAddress",
        "1.2.840.113549.1.9.2": "unstructuredName",
        "1.2.840.113549.1.9.8": "unstructuredAddress",
        "2.5.4.4": "surname",
        "2.5.4.5": "serialNumber",
        "2.5.4.9": "street",
        "2.5.4.12": "title",
        "2.5.4.13": "description",
        "2.5.4.15": "businessCategory",
        "2.5.4.17": "postalCode",
        "2.5.4.41": "name",
        "2.5.4.42": "givenName",
        "2.5.4.97": "organizationIdentifier",
    }
)
"""By object identifier. Beside those of manifests, the names of X.520 and PKCS #9, for messages."""


def check_value(attribute: str, value: str) -> None:
    """Raise ValueError, with a message for people, where X.509 does not allow this value of an attribute."""
    size, limit = len(value.encode() if attribute == COMMON_NAME else value), LIMITS[attribute]
    if attribute == "countries" and not (size == limit and value.isascii() and value.isalpha()):
        raise ValueError(f"{attribute} in a subject must be codes of two letters")
    if not 0 < size <= limit:
        raise ValueError(f"{attribute} in a subject must have 1 to {limit} characters")


def subject_name(common_name: str | None, attributes: Mapping[str, tuple[str, ...]]) -> x509.Name:
    """The distinguished name in the usual order, the common name last.

    Raises ValueError for an attribute that is not in ATTRIBUTES, and for a value that X.509 does not allow.
    """
    if unknown := attributes.keys() - ATTRIBUTES.keys():
        raise ValueError(f"a subject has no {', '.join(sorted(unknown))}")
    for name, values in attributes.items():
        for value in values:
            check_value(name, value)
    parts = [x509.NameAttribute(oid, value) for name, oid in ATTRIBUTES.items() for value in attributes.get(name, ())]
    if common_name:
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(parts)


def attribute_name(oid: str) -> str:
    """The name of an attribute in manifests, or where they have none in X.520 or PKCS #9, or the object identifier."""
    return _NAMES.get(oid, oid)
