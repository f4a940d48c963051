"""What can go wrong with a test cluster.

ClusterError            everything below; its text tells a person what to do
├── NoSource            no control plane can be had here: no binaries, no Go, no network
│   └── NoNode          a control plane can, a node cannot: no root, not Linux, a package is missing
├── BuildFailed         Go was there and the build was not successful
├── StartFailed         a component did not come up; carries the last lines of its log
├── StateError          what was asked for does not fit to what is (not) running
│   └── NotOurs         it would need a cluster that we have started ourselves
└── CommandFailed       kubectl, or another program that was asked to do something, returned an error
"""

from __future__ import annotations

from collections.abc import Sequence


class ClusterError(Exception):
    """Something about the test cluster did not work, said so that a person can act on it."""


class NoSource(ClusterError):
    """There is no way to a control plane on this machine."""


class NoNode(NoSource):
    """This machine can run no node."""


class BuildFailed(ClusterError):
    """The control plane could not be built from its pinned modules."""


class StartFailed(ClusterError):
    """A component of the control plane did not come up, or not in time."""


class StateError(ClusterError):
    """What was asked for does not fit to what is (not) running."""


class NotOurs(StateError):
    """Somebody's own cluster: neither its audit log nor its processes are ours to touch."""


class CommandFailed(ClusterError):
    """A command failed; `output` is what it said."""

    def __init__(self, command: Sequence[str], status: int, output: str, *, program: str = "kubectl") -> None:
        super().__init__(f"{program} {' '.join(command)} ended with status {status}:\n{output.strip()}")
        self.command = tuple(command)
        self.status = status
        self.output = output
