"""Self-contained kubeconfig files."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.cluster.credentials import Credentials


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An API server: its URL and its CA certificate in PEM."""

    server: str
    ca_certificate: bytes


def certificate_user(credentials: Credentials, user: str) -> dict[str, str]:
    """A user entry that authenticates with a client certificate."""
    return {
        "client-certificate-data": _base64(credentials.certificate(user).read_bytes()),
        "client-key-data": _base64(credentials.key(user).read_bytes()),
    }


def token_user(token: str) -> dict[str, str]:
    """A user entry that authenticates with a bearer token."""
    return {"token": token}


def write(path: Path, *, endpoint: Endpoint, user: Mapping[str, str], namespace: str = "default") -> Path:
    """Write a kubeconfig with one cluster, one user and one context, atomically and readable by its owner only."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kms-acme", "cluster": _cluster(endpoint)}],
        "users": [{"name": "kms-acme", "user": dict(user)}],
        "contexts": [
            {"name": "kms-acme", "context": {"cluster": "kms-acme", "user": "kms-acme", "namespace": namespace}}
        ],
        "current-context": "kms-acme",
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return draft.replace(path)


def _cluster(endpoint: Endpoint) -> dict[str, str]:
    return {"server": endpoint.server, "certificate-authority-data": _base64(endpoint.ca_certificate)}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
