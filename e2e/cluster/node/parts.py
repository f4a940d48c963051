"""The programs and images of a cluster with a node, each built on first use."""

from __future__ import annotations

import os
from collections.abc import Mapping

from e2e.cluster import folders
from e2e.cluster.build import Builder
from e2e.cluster.node import programs
from e2e.cluster.node.images import BuiltImage, Images
from e2e.cluster.progress import Progress


class Parts:
    """Builds programs and images.

    All methods raise:
    NoSource: Go is not available, or modules cannot be downloaded.
    BuildFailed: the build failed otherwise.
    """

    def __init__(self, progress: Progress, env: Mapping[str, str] = os.environ) -> None:
        self._progress = progress
        self._env = env
        self.images = Images(folders.cache(env) / "images", progress, env)

    def builder(self, module: str) -> Builder:
        """The builder for a folder in modules/."""
        return programs.builder(module, self._progress, self._env)

    def image(self, module: str, program: str) -> BuiltImage:
        """The image of a program of such a folder."""
        return self.images.program(self.builder(module).ensure((program,)) / program)

    def kms_acme(self) -> BuiltImage:
        """The image of kms-acme from the current sources."""
        return self.images.kms_acme()
