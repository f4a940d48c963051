"""A real node for a test cluster: containerd, kubelet, kube-proxy, the scheduler and cluster DNS. Needs root on Linux.

    with running_node(folder, Progress(sys.stderr)) as cluster:
        cluster.load_image(archive)
        cluster.kubectl("run", "web", f"--image={reference}", "--image-pull-policy=Never")

Tests use the fixture `node_cluster`. On the command line, use `python -m e2e.cluster up --node`.
"""

from __future__ import annotations

from e2e.cluster.node.certmanager import CertManager as CertManager
from e2e.cluster.node.images import Image as Image
from e2e.cluster.node.node_cluster import ZONE as ZONE
from e2e.cluster.node.node_cluster import NodeCluster as NodeCluster
from e2e.cluster.node.own import OwnNodeCluster as OwnNodeCluster
from e2e.cluster.node.running import running_node as running_node

__all__ = ["ZONE", "CertManager", "Image", "NodeCluster", "OwnNodeCluster", "running_node"]
