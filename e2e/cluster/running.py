"""Clusters that live as long as a `with` block."""

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
    """A cluster from the first source that the environment offers.

    One that is started here keeps everything in `folder` (which is empty or does not exist yet) and is stopped at the
    end; its logs stay there.

    Raises:
        ClusterError: there is no source, or the control plane does not come up.
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
