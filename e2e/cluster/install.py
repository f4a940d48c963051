"""Applies crds/ and deploy/rbac.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.cluster.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "crds"
RBAC = ROOT / "deploy" / "rbac.yaml"


def install(cluster: Cluster) -> None:
    """Apply crds/ and deploy/rbac.yaml, and wait until the API server serves the kinds."""
    apply_kinds(cluster, CRDS)
    cluster.kubectl("apply", "--server-side", "--filename", RBAC)
    cluster.learn_new_kinds()


def apply_kinds(cluster: Cluster, folder: Path) -> None:
    """Apply the CRDs of a folder, and wait until the API server serves the kinds."""
    applied = cluster.kubectl("apply", "--server-side", "--filename", folder, "--output=json")
    names = [each["metadata"]["name"] for each in documents(applied)]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))


def documents(printed: str) -> list[dict[str, Any]]:
    """Parse kubectl's JSON for several objects: a List, or consecutive documents."""
    documents: list[dict[str, Any]] = []
    decoder = json.JSONDecoder()
    while printed := printed.lstrip():
        document, end = decoder.raw_decode(printed)
        documents += document["items"] if document["kind"] == "List" else [document]
        printed = printed[end:]
    return documents
