"""`python -m fuzz.guided TARGET [libFuzzer options and folders]`: one target under atheris, until it is told to end."""

from __future__ import annotations

import sys

import atheris

from fuzz.target import check

SLOWER = 20
"""What counting branches costs at most: time is judged here only where it is hopeless, and exactly by the replay."""


def main() -> None:
    """Instrument what is ours and fuzz it."""
    program, name, *options = sys.argv
    with atheris.instrument_imports(include=["acme_server", "kms", "fuzz.targets"]):
        from fuzz import targets  # noqa: PLC0415 - what is imported here is instrumented

        target = targets.load(name)
    atheris.Setup([program, *options], lambda data: check(target, data, budget=SLOWER * 0.05))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
