"""Clusters with a node for the duration of a `with` block."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import sources
from e2e.cluster.node.node_cluster import NodeCluster
from e2e.cluster.node.own import OwnNodeCluster
from e2e.cluster.progress import Progress


@contextmanager
def running_node(
    folder: Path, progress: Progress, *, env: Mapping[str, str] = os.environ
) -> Iterator[NodeCluster | OwnNodeCluster]:
    """Run a cluster with a node, or use the user's own, if KMS_ACME_E2E_KUBECONFIG names it.

    A new cluster keeps its files in `folder`, which is empty or does not exist yet. It is stopped at the end; its logs
    stay.

    Raises:
        ClusterError: this machine cannot run a node, or the cluster cannot be built or started.
    """
    if own := sources.own(env, progress):
        folder.mkdir(parents=True, exist_ok=True)
        yield OwnNodeCluster(own, folder=folder, env=env)
        return
    cluster = NodeCluster.create(folder, progress, env)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
