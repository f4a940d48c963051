"""A user's own cluster in the place of one with a node, and machines that can have neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.errors import NoSource, NotOurs
from e2e.cluster.fixtures import unavailable
from e2e.cluster.node.own import OwnNodeCluster
from e2e.cluster.sources import OwnCluster

KUBECTL = """#!/bin/sh
echo '{"spec": {"clusterIP": "10.96.0.10"}}'
"""


@pytest.fixture
def source(tmp_path: Path) -> OwnCluster:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL, encoding="ascii")
    kubectl.chmod(0o755)
    return OwnCluster(tmp_path / "kubeconfig", kubectl)


def test_the_image_is_the_one_that_was_named(source: OwnCluster, tmp_path: Path) -> None:
    env = {"KMS_ACME_E2E_IMAGE": "registry.example.com:5000/team/kms-acme:1.2.3"}
    cluster = OwnNodeCluster(source, folder=tmp_path, env=env)
    assert (cluster.image.repository, cluster.image.tag) == ("registry.example.com:5000/team/kms-acme", "1.2.3")
    assert cluster.dns_address == "10.96.0.10"


@pytest.mark.parametrize("named", ["", "registry.example.com:5000/kms-acme"])
def test_an_image_without_a_tag_is_an_error(source: OwnCluster, tmp_path: Path, named: str) -> None:
    with pytest.raises(NoSource, match="KMS_ACME_E2E_IMAGE must name an image of kms-acme"):
        OwnNodeCluster(source, folder=tmp_path, env={"KMS_ACME_E2E_IMAGE": named})


def test_what_only_a_node_of_ours_can_do_skips_a_test(source: OwnCluster, tmp_path: Path) -> None:
    cluster = OwnNodeCluster(source, folder=tmp_path, env={"KMS_ACME_E2E_IMAGE": "kms-acme:1"})
    with pytest.raises(NotOurs, match="pods that reach this machine"):
        _ = cluster.machine_address
    with pytest.raises(NotOurs, match=r"load archive\.tar"):
        cluster.load_image(Path("archive.tar"))


def test_what_cannot_be_run_is_skipped_by_people_and_fails_in_ci() -> None:
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        unavailable("needs root", {})
    with pytest.raises(pytest.fail.Exception, match="needs root"):
        unavailable("needs root", {"CI": "true"})
