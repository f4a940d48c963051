"""`python -m e2e.cluster`."""

from __future__ import annotations

from e2e.cluster.cli import main

main(prog_name="python -m e2e.cluster")
