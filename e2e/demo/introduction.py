"""The introduction of the demo: what it starts and builds, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

from e2e.demo.given import GivenCluster

_OWN = "The demo starts a Kubernetes control plane on 127.0.0.1 and stops it at the end. No root, no containers."
_OTHER = "To use your own cluster and build nothing: make demo KUBECONFIG=FILE CONTEXT=NAME"


def introduction(given: GivenCluster | None, to_build: Sequence[str]) -> str:
    """The text for the user's cluster, or for a new one with the programs that are still to be built."""
    if given is not None:
        return (
            f"The demo uses the context {given.context} of {given.kubeconfig}. It builds nothing, takes about a minute,"
            "\nand deletes its objects at the end."
        )
    if not to_build:
        return f"{_OWN}\nThe control plane is already built, so the demo takes about half a minute.\n{_OTHER}"
    return (
        f"{_OWN}\nThe first run downloads 90 MB of Go modules (and Go, 70 MB, unless PATH has a recent version)\n"
        f"and builds {', '.join(to_build)}: 8 to 14 minutes on two cores.\n"
        f"The programs stay in ~/.cache/kms-acme; later runs take half a minute.\n{_OTHER}"
    )
