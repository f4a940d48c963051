"""Clusters with a node that live as long as a `with` block."""

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
    """A cluster with a node; somebody's own, if KMS_ACME_E2E_KUBECONFIG names it.

    One that is started here keeps everything in `folder` (which is empty or does not exist yet) and is stopped at the
    end; its logs stay there.

    Raises:
        ClusterError: this machine cannot run a node, a part of it cannot be had, or it does not come up.
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
