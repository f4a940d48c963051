"""Clusters for the duration of a `with` block."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import sources
from e2e.cluster.cluster import Cluster
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.progress import Progress


@contextmanager
def running(folder: Path, progress: Progress, *, env: Mapping[str, str] = os.environ) -> Iterator[Cluster]:
    """Run a cluster from the first available source.

    A new cluster keeps its files in `folder`, which is empty or does not exist yet. It is stopped at the end; its logs
    stay.

    Raises:
        ClusterError: there is no source, or the control plane does not start.
    """
    source = sources.find(env, progress)
    if isinstance(source, sources.OwnCluster):
        folder.mkdir(parents=True, exist_ok=True)
        yield Cluster(source, folder=folder)
        return
    plane = ControlPlane.create(folder, source)
    plane.start()
    try:
        yield Cluster(plane, folder=folder)
    finally:
        plane.stop()
