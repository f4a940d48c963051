"""deploy/kustomize/base: the chart with its default values, for installations without Helm. The CRDs are in crds/.

Its image has the local name from `make image`; an overlay sets the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from e2e.chart.helm import ROOT, Helm, Manifest

BASE = ROOT / "deploy" / "kustomize" / "base"
_HEAD = "# Generated from charts/kms-acme with its default values by `make chart`. Patch it in an overlay.\n"
# Helm's own labels would be wrong here.
_OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def files(helm: Helm) -> dict[Path, str]:
    """The generated files of the base."""
    manifests = helm.render({"crds": {"enabled": False}}, hooks=False)
    return {BASE / "kms-acme.yaml": _HEAD + "".join(_documents(manifests))}


def _documents(manifests: Iterable[Manifest]) -> Iterator[str]:
    for each in manifests:
        yield "---\n" + yaml.safe_dump(_without_helm(each), sort_keys=False, width=120, allow_unicode=True)


def _without_helm(manifest: Manifest) -> Manifest:
    for metadata in (manifest["metadata"], manifest.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in _OF_HELM:
            metadata.get("labels", {}).pop(label, None)
    return manifest
