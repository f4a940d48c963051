"""Applies crds/ and deploy/rbac.yaml, which the two programs need in a cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from kubernetes import dynamic
from kubernetes.client import ApiClient

logger = logging.getLogger(__name__)

MANAGER = "kms-acme-install"
ESTABLISH_TIMEOUT = 30.0
"""Seconds until the API server must serve new kinds."""


class InstallError(Exception):
    """The API server refused a manifest; the message says which and why."""


def manifest_files() -> Iterator[Traversable]:
    """The files to apply: those inside the installed distribution, or those of a checkout."""
    packaged = files("kms_acme") / "manifests"
    if packaged.is_dir():
        crds, rbac = packaged / "crds", packaged / "rbac.yaml"
    else:
        checkout = Path(__file__).parent.parent
        crds, rbac = checkout / "crds", checkout / "deploy" / "rbac.yaml"
    yield from sorted((each for each in crds.iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name)
    yield rbac


def manifests() -> Iterator[dict[str, Any]]:
    """Every object of those files, in their order."""
    for file in manifest_files():
        yield from (each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each)


def install(client: ApiClient, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Apply all manifests with server-side apply and wait until the new kinds are served.

    Raises InstallError if the API server refuses one.
    """
    api = dynamic.DynamicClient(client)
    applied = []
    for body in manifests():
        name = f"{body['kind']} {body['metadata']['name']}"
        try:
            resource = api.resources.get(api_version=body["apiVersion"], kind=body["kind"])
            api.server_side_apply(
                resource,
                body=body,
                name=body["metadata"]["name"],
                namespace=body["metadata"].get("namespace"),
                field_manager=MANAGER,
                force_conflicts=True,
            )
        except dynamic.exceptions.DynamicApiError as error:
            raise InstallError(f"{name} was refused: {error.summary()}") from error
        logger.info("applied", extra={"object": name})
        if body["kind"] == "CustomResourceDefinition":
            applied.append((resource, body["metadata"]["name"]))
    for resource, name in applied:
        _wait_until_established(resource, name, sleep)


def _wait_until_established(resource: Any, name: str, sleep: Callable[[float], None]) -> None:
    deadline = time.monotonic() + ESTABLISH_TIMEOUT
    while True:
        conditions = resource.get(name=name).to_dict().get("status", {}).get("conditions", [])
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            return
        if time.monotonic() > deadline:
            raise InstallError(f"the API server does not serve {name} after {ESTABLISH_TIMEOUT:.0f} s")
        sleep(0.1)
