"""What a cluster with a node is made of: programs and images, each built once, when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping

from e2e.cluster import folders
from e2e.cluster.build import Builder
from e2e.cluster.node import programs
from e2e.cluster.node.images import BuiltImage, Images
from e2e.cluster.progress import Progress


class Parts:
    """Programs and images of one environment.

    Everything here raises:
        NoSource: there is no Go, or no network to get modules from.
        BuildFailed: anything else about the build.
    """

    def __init__(self, progress: Progress, env: Mapping[str, str] = os.environ) -> None:
        self._progress = progress
        self._env = env
        self.images = Images(folders.cache(env) / "images", progress, env)

    def builder(self, module: str) -> Builder:
        """Of one of the folders in modules/."""
        return programs.builder(module, self._progress, self._env)

    def image(self, module: str, program: str) -> BuiltImage:
        """A program of one of these modules as an image."""
        return self.images.program(self.builder(module).ensure((program,)) / program)

    def kms_acme(self) -> BuiltImage:
        """Ours, as the tree is now."""
        return self.images.kms_acme()
