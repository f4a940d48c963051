"""`python -m fuzz.guided TARGET [libFuzzer options and folders]`: fuzz one target with atheris."""

from __future__ import annotations

import sys

import atheris

from fuzz.target import check

SLOWER = 20
"""Maximum slowdown by instrumentation. Only hopelessly slow inputs fail here; the replay measures exactly."""


def main() -> None:
    """Instrument our packages and fuzz the target."""
    program, name, *options = sys.argv
    with atheris.instrument_imports(include=["acme_server", "kms", "fuzz.targets"]):
        from fuzz import targets  # noqa: PLC0415 - imported here to be instrumented

        target = targets.load(name)
    atheris.Setup([program, *options], lambda data: check(target, data, budget=SLOWER * 0.05))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
