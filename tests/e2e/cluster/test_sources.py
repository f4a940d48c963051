"""In which order sources are looked at."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from e2e.cluster import folders, sources
from e2e.cluster.build import Builder
from e2e.cluster.control_plane import Binaries
from e2e.cluster.errors import NoSource
from e2e.cluster.progress import Progress
from e2e.cluster.sources import OwnCluster

PROGRESS = Progress(io.StringIO())


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n", encoding="ascii")
        (folder / name).chmod(0o755)
    return folder


def test_a_cluster_that_is_named_comes_first(tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    assets = programs(tmp_path / "assets", "etcd", "kube-apiserver", "kubectl")
    env = {
        "KMS_ACME_E2E_KUBECONFIG": str(tmp_path / "config"),
        "KUBEBUILDER_ASSETS": str(assets),
        "PATH": str(assets),
    }
    assert sources.find(env, PROGRESS) == OwnCluster(tmp_path / "config", assets / "kubectl")


def test_a_kubeconfig_of_every_day_is_not_taken(tmp_path: Path) -> None:
    assets = programs(tmp_path / "assets", "etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
    env = {"KUBECONFIG": str(tmp_path / "config"), "KUBEBUILDER_ASSETS": str(assets)}
    assert isinstance(sources.find(env, PROGRESS), Binaries)


def test_a_named_kubeconfig_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoSource, match=r"KMS_ACME_E2E_KUBECONFIG names .*none, which is not a file"):
        sources.find({"KMS_ACME_E2E_KUBECONFIG": str(tmp_path / "none")}, PROGRESS)


def test_assets_that_lack_something_are_an_error(tmp_path: Path) -> None:
    assets = programs(tmp_path / "assets", "etcd")
    with pytest.raises(NoSource, match="which has no kube-apiserver and no kubectl"):
        sources.find({"KUBEBUILDER_ASSETS": str(assets)}, PROGRESS)


def test_a_controller_manager_that_the_assets_lack_comes_from_the_cache(tmp_path: Path) -> None:
    assets = programs(tmp_path / "assets", "etcd", "kube-apiserver", "kubectl")
    env = {"KUBEBUILDER_ASSETS": str(assets), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    cached = Builder(folders.cache(env) / "cluster", env, PROGRESS).folder
    programs(cached, "kube-controller-manager")
    found = sources.binaries(env, PROGRESS)
    assert found.kube_controller_manager == cached / "kube-controller-manager"
    assert found.etcd == assets / "etcd"


def test_folders_follow_the_xdg_variables_unless_they_are_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert folders.cache({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/kms-acme")
    assert folders.cache({"XDG_CACHE_HOME": "cache"}) == Path("/home/somebody/.cache/kms-acme")
    assert folders.state({}) == Path("/home/somebody/.local/state/kms-acme")
