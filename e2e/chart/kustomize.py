"""deploy/kustomize/base: the chart with its default values, for installations without Helm. The CRDs are in crds/.

Its image has the local name from `make image`; an overlay sets the registry. The options of the programs are in
kms-acme.env, from which kustomize generates a ConfigMap that both containers have as environment variables. So an
overlay changes an option of both programs by its name, and a change replaces the pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from e2e.chart.helm import ROOT, Helm, Manifest

BASE = ROOT / "deploy" / "kustomize" / "base"
CONFIG_MAP = "kms-acme"
_HEAD = "# Generated from charts/kms-acme with its default values by `make chart`. Patch it in an overlay.\n"
_OPTIONS_HEAD = "# Generated like kms-acme.yaml: the options of both programs. An overlay merges its own into them.\n"
# Helm's own labels would be wrong here.
_OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def files(helm: Helm) -> dict[Path, str]:
    """The generated files of the base."""
    manifests = helm.render({"crds": {"enabled": False}}, hooks=False)
    options: dict[str, str] = {}
    text = _HEAD + "".join(_documents(manifests, options))
    lines = "".join(f"{variable}={value}\n" for variable, value in sorted(options.items()))
    return {BASE / "kms-acme.yaml": text, BASE / "kms-acme.env": _OPTIONS_HEAD + lines}


def variable_of(option: str) -> str:
    """The environment variable of an option: KMS_ACME_EXTERNAL_URL for --external-url."""
    return "KMS_ACME_" + option.removeprefix("--").replace("-", "_").upper()


def _documents(manifests: Iterable[Manifest], options: dict[str, str]) -> Iterator[str]:
    for each in manifests:
        plain = _without_helm(each)
        if plain["kind"] == "Deployment":
            options |= _move_options(plain["spec"]["template"]["spec"]["containers"])
        yield "---\n" + yaml.safe_dump(plain, sort_keys=False, width=120, allow_unicode=True)


def _move_options(containers: list[dict[str, Any]]) -> dict[str, str]:
    """Take the options out of the arguments, except those that the two programs have with different values."""
    given = [dict(arg.split("=", 1) for arg in each["args"][1:]) for each in containers]
    shared = {
        option: value
        for options in given
        for option, value in options.items()
        if all(others.get(option, value) == value for others in given)
    }
    for each, options in zip(containers, given, strict=True):
        if len(options) != len(each["args"]) - 1:
            raise ValueError("an option is given twice: an environment variable has one value")
        each["args"] = [each["args"][0], *(f"{key}={value}" for key, value in options.items() if key not in shared)]
        each["envFrom"] = [{"configMapRef": {"name": CONFIG_MAP}}]
    return {variable_of(option): value for option, value in shared.items()}


def options_of(container: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a program of the base sees: those of the ConfigMap, which its own arguments override."""
    own = dict(arg.split("=", 1) for arg in container["args"][1:])
    return {**environment, **{variable_of(option): value for option, value in own.items()}}


def _without_helm(manifest: Manifest) -> Manifest:
    for metadata in (manifest["metadata"], manifest.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in _OF_HELM:
            metadata.get("labels", {}).pop(label, None)
    return manifest
