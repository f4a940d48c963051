"""The user's own cluster, such as kind, with an image that it can run."""

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
    """The user's own cluster as a NodeCluster. What it cannot do raises NotOurs, which skips a test."""

    def __init__(self, source: OwnCluster, *, folder: Path, env: Mapping[str, str]) -> None:
        """Raises NoSource unless KMS_ACME_E2E_IMAGE names an image."""
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
        """Raises NotOurs: built images cannot be loaded into the user's cluster."""
        raise NotOurs("this needs a cluster that runs images built by the tests")

    @property
    def node(self) -> Never:
        """Raises NotOurs: the user's nodes are out of reach."""
        raise NotOurs("this needs a node that the tests start themselves, not your own")

    @property
    def machine_address(self) -> Never:
        """Raises NotOurs: pods of the user's cluster may not reach this machine."""
        raise NotOurs("this needs pods that reach this machine, unlike those of your own cluster")

    def load_image(self, archive: Path) -> Never:
        """Raises NotOurs: images cannot be loaded into the user's cluster."""
        raise NotOurs(f"this needs to load {archive.name} into a cluster that the tests start themselves")
