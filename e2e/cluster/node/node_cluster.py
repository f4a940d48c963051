"""A cluster with a node: what a test that needs pods holds in its hands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

from e2e.cluster import sources
from e2e.cluster.cluster import Cluster
from e2e.cluster.control_plane import ControlPlane, Site
from e2e.cluster.credentials import Credentials
from e2e.cluster.node import machine, network, programs
from e2e.cluster.node.images import BuiltImage
from e2e.cluster.node.node import USERS, Node
from e2e.cluster.node.parts import Parts
from e2e.cluster.progress import Progress

ZONE = "test"
"""Names below it are what a DNS server of the test says, on port 53 of the machine's address."""
_READY_LIMIT = 120
_MANIFESTS = Path(__file__).with_name("manifests")


class NodeCluster(Cluster):
    """A control plane and one node, in one folder. Whoever started them also stops them.

    Pods run images that were loaded, with `imagePullPolicy: Never` or `IfNotPresent`: there is no registry. They reach
    one another, Services, and `machine_address`, where servers of the test may listen on any port; they are reached
    from this machine, and so are Services.
    """

    def __init__(self, plane: ControlPlane, node: Node, parts: Parts) -> None:
        super().__init__(plane, folder=plane.folder)
        self.plane = plane
        self.node = node
        self.parts = parts

    @classmethod
    def create(cls, folder: Path, progress: Progress, env: Mapping[str, str] = os.environ) -> Self:
        """Lay out a new one in a folder that does not exist yet or is empty; start() starts it.

        Raises:
            NoNode: this machine cannot run a node.
            NoSource, BuildFailed: a program or the image of `pause` cannot be had.
        """
        machine.prepare(progress, env)
        parts, binaries = Parts(progress, env), sources.binaries(env, progress)
        node_programs, pause = programs.of_node(progress, env), parts.image("images", "pause")
        addresses = network.free(network.used())
        site = Site(addresses.machine, addresses.services, runs_pods=True)
        plane = ControlPlane.create(folder, binaries, site=site, users=USERS)
        return cls(plane, Node.create(folder / "node", node_programs, addresses, pause), parts)

    @classmethod
    def open(cls, folder: Path, progress: Progress, env: Mapping[str, str] = os.environ) -> Self:
        """One that was created before, perhaps by another process.

        Raises:
            StateError: there is none in this folder.
        """
        return cls(ControlPlane.open(folder), Node.open(folder / "node"), Parts(progress, env))

    def start(self) -> None:
        """Start everything and wait until the node is ready for pods.

        Raises:
            StartFailed: with the last lines of the log of what did not come up; nothing runs then.
        """
        try:
            self.node.start_runtime()
            self.plane.start()
            self.kubectl("apply", "--server-side", "--filename", _MANIFESTS)
            self.node.start(self.plane.endpoint, Credentials(self.plane.folder / "pki"), zones=(ZONE,))
            self.kubectl("wait", "--for=condition=Ready", "node", "--all", f"--timeout={_READY_LIMIT}s")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything. Logs stay; images, volumes and what containers wrote are removed."""
        try:
            self.node.stop()
        finally:
            self.plane.stop()

    def release(self) -> None:
        """Let everything go on after the end of this process."""
        self.node.release()
        self.plane.release()

    def running(self) -> dict[str, bool]:
        """Which components run."""
        return {**self.plane.running(), **self.node.running()}

    def log(self, component: str) -> Path:
        """Log file of a component of the control plane or of the node."""
        return self.node.log(component) if component in self.node.running() else self.plane.log(component)

    @cached_property
    def image(self) -> BuiltImage:
        """kms-acme as the tree is now, built and loaded when it is first asked for.

        Raises:
            BuildFailed: with the end of what buildah said.
        """
        image = self.parts.kms_acme()
        self.load_image(image.archive)
        return image

    def load_image(self, archive: Path) -> None:
        """Load an image from an archive (of OCI or docker): pods may run it by the reference in it.

        Raises:
            CommandFailed: with what containerd said.
        """
        self.node.load(archive)

    @property
    def dns_address(self) -> str:
        """The cluster's DNS server, on port 53: Services, pods, and the zone `test`."""
        return self.node.network.node

    @property
    def machine_address(self) -> str:
        """This machine as pods see it, and nobody else. A DNS server of the test belongs on its port 53."""
        return self.node.network.machine
