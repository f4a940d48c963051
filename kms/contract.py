"""What the server and the operator must agree on, and no resource says."""

from __future__ import annotations

from typing import Literal

Program = Literal["server", "operator"]


def lease_name(service: str, program: Program) -> str:
    """The Lease of the release namespace that elects one replica of the program.

    It is named after the Service in front of the server, so that two installations in one namespace elect apart.
    """
    return f"{service}-{program}"
