"""What the demo says before it begins: what it brings along, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

from e2e.demo.given import GivenCluster

_OWN = "The demo starts a Kubernetes control plane on 127.0.0.1 and stops it at the end. No root, no containers."
_OTHER = "To use a cluster of yours and build nothing: make demo KUBECONFIG=FILE CONTEXT=NAME"


def introduction(given: GivenCluster | None, to_build: Sequence[str]) -> str:
    """The text, for a cluster of the demo's own with these programs still to be built, or for the one that is given."""
    if given is not None:
        return (
            f"The demo uses the context {given.context} of {given.kubeconfig}. It builds nothing, takes about a minute,"
            "\nand deletes at the end what it has made in the cluster."
        )
    if not to_build:
        return f"{_OWN}\nThe control plane is built: this takes about half a minute.\n{_OTHER}"
    return (
        f"{_OWN}\nThis first time it downloads 90 MB of Go modules (and Go itself, 70 MB, if PATH has none that is new"
        f" enough)\nand builds {', '.join(to_build)}: 8 to 14 minutes on two cores.\n"
        f"They are kept in ~/.cache/kms-acme; the next time takes half a minute.\n{_OTHER}"
    )
