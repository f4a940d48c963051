"""A cluster with a node, for tests that need pods."""

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
"""The zone that a DNS server of the test answers, on port 53 of the machine's address."""
_READY_LIMIT = 120
_MANIFESTS = Path(__file__).with_name("manifests")


class NodeCluster(Cluster):
    """A control plane and a node in one folder. The code that started them stops them.

    There is no registry: pods run loaded images, with `imagePullPolicy: Never` or `IfNotPresent`. They reach each
    other, Services, and `machine_address`, where servers of the test can listen. This machine reaches pods and
    Services.
    """

    def __init__(self, plane: ControlPlane, node: Node, parts: Parts) -> None:
        super().__init__(plane, folder=plane.folder)
        self.plane = plane
        self.node = node
        self.parts = parts

    @classmethod
    def create(cls, folder: Path, progress: Progress, env: Mapping[str, str] = os.environ) -> Self:
        """Prepare a new cluster in a new or empty folder; start() starts it.

        Raises:
            NoNode: this machine cannot run a node.
            NoSource, BuildFailed: a program or the image of `pause` is not available.
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
        """Open an existing cluster.

        Raises:
            StateError: there is none in this folder.
        """
        return cls(ControlPlane.open(folder), Node.open(folder / "node"), Parts(progress, env))

    def start(self) -> None:
        """Start the cluster and wait until the node is ready for pods.

        Raises:
            StartFailed: a component did not start; the text has the end of its log. Nothing runs then.
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
        """Stop the cluster. Logs stay; images, volumes and the data of containers are removed."""
        try:
            self.node.stop()
        finally:
            self.plane.stop()

    def release(self) -> None:
        """Keep the cluster running after the end of this process."""
        self.node.release()
        self.plane.release()

    def running(self) -> dict[str, bool]:
        """Which components run."""
        return {**self.plane.running(), **self.node.running()}

    def log(self, component: str) -> Path:
        """The log of a component of the control plane or of the node."""
        return self.node.log(component) if component in self.node.running() else self.plane.log(component)

    @cached_property
    def image(self) -> BuiltImage:
        """The image of kms-acme from the current sources, built and loaded on first use.

        Raises:
            BuildFailed: with the end of buildah's output.
        """
        image = self.parts.kms_acme()
        self.load_image(image.archive)
        return image

    def load_image(self, archive: Path) -> None:
        """Load an image from an OCI or Docker archive, under the reference in it.

        Raises:
            CommandFailed: with containerd's error message.
        """
        self.node.load(archive)

    @property
    def dns_address(self) -> str:
        """The address of the cluster's DNS server, for Services, pods, and the zone `test`."""
        return self.node.network.node

    @property
    def machine_address(self) -> str:
        """The address of this machine for pods. DNS servers of tests listen on its port 53."""
        return self.node.network.machine
