"""Sources of a control plane, in this order: the user's own cluster, KUBEBUILDER_ASSETS, or a build."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import folders
from e2e.cluster.build import Builder
from e2e.cluster.control_plane import Binaries
from e2e.cluster.errors import NoSource
from e2e.cluster.progress import Progress

OWN_CLUSTER = "KMS_ACME_E2E_KUBECONFIG"
ASSETS = "KUBEBUILDER_ASSETS"


@dataclass(frozen=True, slots=True)
class OwnCluster:
    """The user's own running cluster."""

    kubeconfig: Path
    kubectl: Path


def find(env: Mapping[str, str], progress: Progress) -> OwnCluster | Binaries:
    """Find the first available source; a build takes a few minutes.

    KUBECONFIG and the current context are ignored, so that no production cluster becomes a test cluster by accident.

    Raises:
        NoSource: there is none, or a variable names a missing file.
        BuildFailed: see build.Builder.
    """
    return own(env, progress) or binaries(env, progress)


def own(env: Mapping[str, str], progress: Progress) -> OwnCluster | None:
    """The user's own cluster, if KMS_ACME_E2E_KUBECONFIG names one.

    Raises:
        NoSource: see find().
    """
    named = env.get(OWN_CLUSTER)
    return _own(Path(named), env, progress) if named else None


def binaries(env: Mapping[str, str], progress: Progress) -> Binaries:
    """Find or build the programs of a control plane.

    Raises:
        NoSource: see find().
        BuildFailed: see build.Builder.
    """
    builder = Builder(folders.cache(env) / "cluster", env, progress)
    if assets := env.get(ASSETS):
        return _assets(Path(assets), builder)
    return _in(builder.ensure())


def to_build(env: Mapping[str, str]) -> list[str]:
    """The programs that `binaries` would build."""
    builder = Builder(folders.cache(env) / "cluster", env, Progress(io.StringIO()))
    if not (assets := env.get(ASSETS)):
        return builder.missing()
    if (Path(assets) / "kube-controller-manager").is_file():
        return []
    return builder.missing(("kube-controller-manager",))


def _own(config: Path, env: Mapping[str, str], progress: Progress) -> OwnCluster:
    if not config.is_file():
        raise NoSource(f"{OWN_CLUSTER} names {config}, which is not a file.")
    if kubectl := shutil.which("kubectl", path=env.get("PATH", "")):
        return OwnCluster(config.resolve(), Path(kubectl))
    return OwnCluster(config.resolve(), binaries(env, progress).kubectl)


def _assets(folder: Path, builder: Builder) -> Binaries:
    """The programs in a folder of controller-runtime's envtest. Its missing kube-controller-manager is built."""
    missing = [each for each in ("etcd", "kube-apiserver", "kubectl") if not (folder / each).is_file()]
    if missing:
        raise NoSource(f"{ASSETS} names {folder}, which has no {' and no '.join(missing)}.")
    given = _in(folder.resolve())
    if given.kube_controller_manager.is_file():
        return given
    built = builder.ensure(("kube-controller-manager",))
    return Binaries(given.etcd, given.kube_apiserver, built / "kube-controller-manager", given.kubectl)


def _in(folder: Path) -> Binaries:
    return Binaries(folder / "etcd", folder / "kube-apiserver", folder / "kube-controller-manager", folder / "kubectl")
