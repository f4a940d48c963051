"""Helm: the program in the variable HELM, or built once into the cache from the module pinned in modules/go.mod."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import folders
from e2e.cluster.build import Builder
from e2e.cluster.errors import CommandFailed
from e2e.cluster.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "kms-acme"
RELEASE = NAMESPACE = "kms-acme"
REPOSITORY = "kms-acme"
"""The image repository of `make image`; the chart has no default."""
_MODULES = Path(__file__).with_name("modules")
_PACKAGES = {"helm": "helm.sh/helm/v4/cmd/helm"}
_LIMIT = 400.0

Manifest = dict[str, Any]


def program(env: Mapping[str, str], progress: Progress) -> Path:
    """Find helm, or build it, which takes a few minutes.

    Raises:
        NoSource, BuildFailed: see e2e.cluster.build.Builder.
    """
    if named := env.get("HELM"):
        return Path(named)
    return Builder(folders.cache(env) / "helm", env, progress, _MODULES, _PACKAGES).ensure() / "helm"


@dataclass(frozen=True, slots=True)
class Helm:
    """Runs helm with its folders below `home`, independent of the user's configuration."""

    program: Path
    home: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the cluster, if any."""
    _printed: dict[tuple[str, ...], str] = field(default_factory=dict)

    def run(self, *args: str | Path) -> str:
        """Run helm and return its output.

        Raises:
            CommandFailed: helm failed.
        """
        own = {f"HELM_{name}_HOME": str(self.home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        command = [str(each) for each in args]
        done = subprocess.run(
            [str(self.program), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "KUBECONFIG": os.devnull, **self.env, **own},
            timeout=_LIMIT,
            check=False,
        )
        if done.returncode != 0:
            raise CommandFailed(command, done.returncode, done.stderr or done.stdout)
        return done.stdout

    def with_values(self, values: Mapping[str, Any], *args: str | Path) -> str:
        """Run helm with these values; the image is REPOSITORY unless they name another.

        Raises:
            CommandFailed: helm failed.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        file = self.home / "values.json"
        image = {"repository": REPOSITORY, **values.get("image", {})}
        file.write_text(json.dumps({**values, "image": image}), encoding="utf-8")
        return self.run(*args, f"--values={file}")

    def render(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        release: str = RELEASE,
        namespace: str = NAMESPACE,
        apis: tuple[str, ...] = (),
        hooks: bool = True,
    ) -> list[Manifest]:
        """Render the chart with these values; `apis` are the API versions of the cluster besides Kubernetes's own.

        The same arguments are rendered once: helm takes a quarter of a second.

        Raises:
            CommandFailed: the values are invalid; the text says why.
        """
        wanted = [f"--api-versions={each}" for each in apis] + ([] if hooks else ["--no-hooks"])
        asked = (json.dumps(values or {}, sort_keys=True), release, namespace, *wanted)
        if (printed := self._printed.get(asked)) is None:
            where = f"--namespace={namespace}"
            printed = self.with_values(values or {}, "template", release, CHART, where, *wanted)
            self._printed[asked] = printed
        return list(documents(printed))


def documents(text: str) -> Iterator[Manifest]:
    """The non-empty documents of a YAML stream."""
    yield from (each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each)
