"""A real Kubernetes control plane for tests, the demo and the load tool. Needs no Docker and no root.

    from e2e.cluster import Progress, running

    with running(folder, Progress(sys.stderr)) as cluster:
        cluster.kubectl("get", "namespaces")

It runs no pods; see e2e.cluster.node for a cluster with a node.

Tests use the fixtures `cluster`, `installed` and `namespace` (fixtures.py). On the command line, use
`python -m e2e.cluster up`.
"""

from __future__ import annotations

from e2e.cluster.audit import AuditLog as AuditLog
from e2e.cluster.cluster import Cluster as Cluster
from e2e.cluster.control_plane import ControlPlane as ControlPlane
from e2e.cluster.errors import ClusterError as ClusterError
from e2e.cluster.errors import CommandFailed as CommandFailed
from e2e.cluster.processes import Process as Process
from e2e.cluster.progress import Progress as Progress
from e2e.cluster.running import running as running

__all__ = ["AuditLog", "Cluster", "ClusterError", "CommandFailed", "ControlPlane", "Process", "Progress", "running"]
