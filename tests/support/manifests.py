"""Minimal valid manifests of the eight kinds, and changes to them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from kms.resources.kinds import Kind

Manifest = dict[str, Any]

SPECS: Mapping[str, Manifest] = {
    "CertificateAuthority": {"internal": {"subject": {"commonName": "Example CA"}}},
    "CertificatePolicy": {"dnsNames": {"allowed": ["*.apps.example.com"]}},
    "CertificateProfile": {
        "issuerRef": {"name": "issuing"},
        "policyRef": {"name": "web"},
        "enrollment": {"acme": {}},
    },
    "EABCredential": {"profileRef": {"name": "web"}},
    "ACMEAccount": {
        "profileRef": {"name": "web"},
        "key": '{"crv":"P-256","kty":"EC","x":"AA","y":"AA"}',
        "thumbprint": "x" * 43,
    },
    "ACMEOrder": {
        "accountRef": {"name": "somebody"},
        "profileRef": {"name": "web"},
        "identifiers": [{"type": "dns", "value": "shop.apps.example.com"}],
        "expires": "2026-12-01T00:00:00Z",
    },
    "CertificateChain": {"certificates": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"},
    "RevocationRecord": {
        "namespace": "pki",
        "profile": "web",
        "until": "2026-12-02T00:00:00Z",
        "certificate": {
            "authorityKeyID": "ab" * 20,
            "serialNumber": "1234",
            "notAfter": "2026-12-01T00:00:00Z",
            "time": "2026-11-30T00:00:00Z",
            "reason": "superseded",
        },
    },
}


def manifest(kind: Kind[Any], changes: Mapping[str, Any] | None = None, *, name: str = "example") -> Manifest:
    """The smallest valid manifest, with changes to its spec.

    A field is named by its path (`internal.duration`); None removes it.
    """
    spec = copy.deepcopy(SPECS[kind.kind])
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        node = spec
        for each in parents:
            node = node.setdefault(each, {})
        node[last] = value
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}


def text(*manifests: Manifest) -> str:
    """Manifests for the standard input of kubectl, as separate documents; kubectl would validate a List itself."""
    return "\n---\n".join(json.dumps(each) for each in manifests)
