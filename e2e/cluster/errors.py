"""Errors of a test cluster.

ClusterError            base class; the text says what to do
├── NoSource            no control plane available: no binaries, no Go, no network
│   └── NoNode          no node possible: no root, not Linux, a package is missing
├── BuildFailed         the build failed
├── StartFailed         a component did not start; the text has the end of its log
├── StateError          the cluster does not exist, or does not run
│   └── NotOurs         not possible with the user's own cluster
└── CommandFailed       kubectl or another program failed
"""

from __future__ import annotations

from collections.abc import Sequence


class ClusterError(Exception):
    """An error of the test cluster; the text says what to do."""


class NoSource(ClusterError):
    """No control plane is available on this machine."""


class NoNode(NoSource):
    """This machine cannot run a node."""


class BuildFailed(ClusterError):
    """The control plane could not be built from its Go modules."""


class StartFailed(ClusterError):
    """A component did not start in time."""


class StateError(ClusterError):
    """The cluster does not exist, or does not run."""


class NotOurs(StateError):
    """Not possible with the user's own cluster: its audit log and processes are out of reach."""


class CommandFailed(ClusterError):
    """A command failed; `output` has its error message."""

    def __init__(self, command: Sequence[str], status: int, output: str, *, program: str = "kubectl") -> None:
        super().__init__(f"{program} {' '.join(command)} ended with status {status}:\n{output.strip()}")
        self.command = tuple(command)
        self.status = status
        self.output = output
