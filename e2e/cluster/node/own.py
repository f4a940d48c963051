"""A user's own cluster in the place of one of ours: kind, for instance, with an image that it can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Never

from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import NoSource, NotOurs
from e2e.cluster.node.images import Image
from e2e.cluster.sources import OwnCluster

IMAGE = "KMS_ACME_E2E_IMAGE"


class OwnNodeCluster(Cluster):
    """As much of a NodeCluster as there is in somebody's own cluster; what is not there skips a test (NotOurs)."""

    def __init__(self, source: OwnCluster, *, folder: Path, env: Mapping[str, str]) -> None:
        """Raises NoSource if KMS_ACME_E2E_IMAGE names no image."""
        super().__init__(source, folder=folder)
        named = env.get(IMAGE, "")
        if ":" not in named.rpartition("/")[2]:
            raise NoSource(f"{IMAGE} must name an image of kms-acme that your cluster can run, with its tag.")
        self.image = Image(named)

    @property
    def dns_address(self) -> str:
        """The cluster's DNS server, on port 53."""
        found = json.loads(self.kubectl("get", "service", "kube-dns", "--namespace=kube-system", "--output=json"))
        address: str = found["spec"]["clusterIP"]
        return address

    @property
    def parts(self) -> Never:
        """Raises NotOurs: images that are built here do not get into your cluster."""
        raise NotOurs("this needs a cluster that runs images which the tests have built")

    @property
    def node(self) -> Never:
        """Raises NotOurs: your nodes are not ours to look into."""
        raise NotOurs("this needs a node that the tests have started themselves, not one of your own")

    @property
    def machine_address(self) -> Never:
        """Raises NotOurs: pods of your cluster need not reach this machine."""
        raise NotOurs("this needs pods that reach this machine, which those of your own cluster need not")

    def load_image(self, archive: Path) -> Never:
        """Raises NotOurs: how images get into your cluster is not known."""
        raise NotOurs(f"this needs to load {archive.name} into a cluster that the tests have started themselves")
