"""Key usages by their names in certificates.k8s.io, and the extensions for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import ObjectIdentifier

KEY_USAGES: Mapping[str, str] = MappingProxyType(
    {
        "signing": "digital_signature",
        "digital signature": "digital_signature",
        "content commitment": "content_commitment",
        "key encipherment": "key_encipherment",
        "data encipherment": "data_encipherment",
        "key agreement": "key_agreement",
    }
)
"""Bits of the key usage extension for end entities; those of CAs are excluded."""

EXTENDED_KEY_USAGES: Mapping[str, ObjectIdentifier] = MappingProxyType(
    {
        "any": Purpose.ANY_EXTENDED_KEY_USAGE,
        "server auth": Purpose.SERVER_AUTH,
        "client auth": Purpose.CLIENT_AUTH,
        "code signing": Purpose.CODE_SIGNING,
        "email protection": Purpose.EMAIL_PROTECTION,
        "s/mime": Purpose.EMAIL_PROTECTION,
        "ipsec end system": ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
        "ipsec tunnel": ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
        "ipsec user": ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
        "timestamping": Purpose.TIME_STAMPING,
        "ocsp signing": Purpose.OCSP_SIGNING,
    }
)

_SYNONYMS: Mapping[str, str] = MappingProxyType({"signing": "digital signature", "s/mime": "email protection"})
_PURPOSES: Mapping[str, str] = MappingProxyType(
    {oid.dotted_string: name for name, oid in EXTENDED_KEY_USAGES.items() if name not in _SYNONYMS}
)

KNOWN_USAGES = frozenset(KEY_USAGES) | frozenset(EXTENDED_KEY_USAGES)

_BITS_OF_EVERY_KEY = frozenset({"digital_signature", "content_commitment"})
_BITS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "RSA": _BITS_OF_EVERY_KEY | {"key_encipherment", "data_encipherment"},
        "ECDSA": _BITS_OF_EVERY_KEY | {"key_agreement"},
        "Ed25519": _BITS_OF_EVERY_KEY,
    }
)
"""The usages of a key (RFC 3279, 2.3.1 and 2.3.5; RFC 8410, 5), by the first part of its algorithm's name."""

_NO_BITS: Mapping[str, bool] = MappingProxyType(
    dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
)


def lacks_key_usage(usages: Collection[str], key_algorithm: str) -> bool:
    """Whether key usages are requested, but none that a key of this algorithm (`ECDSA-P256`) supports."""
    asked = {KEY_USAGES[each] for each in usages if each in KEY_USAGES}
    return bool(asked) and not asked & _BITS[key_algorithm.partition("-")[0]]


def supported_usages(usages: Iterable[str], key_algorithm: str) -> tuple[str, ...]:
    """These usages without the key usages that a key of this algorithm (`ECDSA-P256`) does not support."""
    bits = _BITS[key_algorithm.partition("-")[0]]
    return tuple(each for each in usages if each not in KEY_USAGES or KEY_USAGES[each] in bits)


def bits_in(usage: x509.KeyUsage) -> frozenset[str]:
    """The bits that are set in a key usage extension, by their names in cryptography."""
    # Without key agreement the library does not read its two qualifiers.
    read = _NO_BITS.keys() if usage.key_agreement else _NO_BITS.keys() - {"encipher_only", "decipher_only"}
    return frozenset(bit for bit in read if getattr(usage, bit))


def key_usage(usages: Collection[str], key_algorithm: str) -> x509.KeyUsage | None:
    """The key usage extension: the requested usages that the key supports, so key encipherment only for RSA.

    None if none is requested. Raises ValueError if the key supports none of them: an extension without a bit is
    forbidden (RFC 5280, 4.2.1.3), and leaving it out would allow everything.
    """
    if lacks_key_usage(usages, key_algorithm):
        raise ValueError(f"none of the key usages {sorted(usages)} suits an {key_algorithm} key")
    asked = {KEY_USAGES[each] for each in usages if each in KEY_USAGES}
    granted = asked & _BITS[key_algorithm.partition("-")[0]]
    return x509.KeyUsage(**{**_NO_BITS, **dict.fromkeys(granted, True)}) if granted else None


def extended_key_usage(usages: Collection[str]) -> x509.ExtendedKeyUsage | None:
    """The extended key usage extension in a stable order; None if no purpose is requested."""
    purposes = dict.fromkeys(oid for name, oid in EXTENDED_KEY_USAGES.items() if name in usages)
    return x509.ExtendedKeyUsage(purposes) if purposes else None


def canonical_usages(usages: Iterable[str]) -> frozenset[str]:
    """The usages under one name each: some have two in certificates.k8s.io."""
    return frozenset(_SYNONYMS.get(each, each) for each in usages)


def usage_of_purpose(oid: str) -> str:
    """The name of an extended key usage, or the object identifier of one that manifests have no name for."""
    return _PURPOSES.get(oid, oid)
