"""Builds the programs of a node and of its images from pinned Go modules, once, into the cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster import folders
from e2e.cluster.build import Builder
from e2e.cluster.node.node import Programs
from e2e.cluster.progress import Progress

MODULES = Path(__file__).with_name("modules")
_PACKAGES = {
    "kubernetes": {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kube-proxy", "kube-scheduler")},
    "coredns": {"coredns": "."},
    "certmanager": {"cert-manager": "."},
    "certmanager-webhook": {"cert-manager-webhook": "."},
    "images": {"pause": "./pause", "solver": "./solver"},
}


def builder(module: str, progress: Progress, env: Mapping[str, str] = os.environ) -> Builder:
    """The builder for a folder in modules/.

    Its ensure() raises:
        NoSource: Go is not available, or modules cannot be downloaded.
        BuildFailed: the build failed otherwise.
    """
    return Builder(folders.cache(env) / "cluster", env, progress, MODULES / module, _PACKAGES[module])


def of_node(progress: Progress, env: Mapping[str, str] = os.environ) -> Programs:
    """Build kubelet, kube-proxy, kube-scheduler and coredns. Raises the errors of builder()."""
    kubernetes = builder("kubernetes", progress, env).ensure()
    dns = builder("coredns", progress, env).ensure()
    return Programs(kubernetes / "kubelet", kubernetes / "kube-proxy", kubernetes / "kube-scheduler", dns / "coredns")
