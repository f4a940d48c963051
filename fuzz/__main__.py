"""`python -m fuzz`: coverage-guided search for inputs that break a parser."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from fuzz import corpus, seeds, targets
from fuzz.target import check

ROOT = Path(__file__).parents[1]

HELP = """Fuzz the parsers of untrusted input, with one process per core.

Without TARGETS, all targets run, each for the same time. A run starts with real inputs and those in fuzz/corpus/. Each
input that reaches new code is replayed without instrumentation, to check the limit of 50 ms of CPU time. Inputs that
break a target are written to fuzz/found/. Requires atheris, which `make fuzz` installs.

Exit codes: 0 for success; 1 if a target broke; 2 for wrong usage."""


@click.command(help=HELP)
@click.argument("names", metavar="[TARGETS]...", nargs=-1, type=click.Choice(targets.NAMES))
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=10, show_default=True, help="Total time."
)
@click.option("--keep", is_flag=True, help="Add inputs that reached new code to fuzz/corpus/.")
def main(*, names: Sequence[str], minutes: float, keep: bool) -> None:
    """Fuzz the targets."""
    names = names or targets.NAMES
    cores = len(os.sched_getaffinity(0))
    each = max(1, int(60 * minutes * min(cores, len(names)) / len(names)))
    click.echo(f"{len(names)} targets, {each} s each, {cores} at once")
    with ThreadPoolExecutor(cores) as pool:
        broken = [
            name
            for name, ok in zip(names, pool.map(lambda name: _fuzz(name, each, keep=keep), names), strict=True)
            if not ok
        ]
    if broken:
        sys.exit(f"Broken targets: {', '.join(broken)}. The inputs are in fuzz/found/.")


def _fuzz(name: str, seconds: int, *, keep: bool) -> bool:
    """Fuzz one target; False if it broke."""
    with tempfile.TemporaryDirectory() as folder:
        start, reached = Path(folder) / "start", Path(folder) / "reached"
        for each in (start, reached):
            each.mkdir()
        for number, data in enumerate((*seeds.of(name), *corpus.found(name))):
            (start / str(number)).write_bytes(data)
        found = ROOT / "fuzz" / "found"
        found.mkdir(exist_ok=True)
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/{name}-", "-print_final_stats=1"]
        longest = targets.load(name).longest
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "fuzz.guided", name, *options, f"-max_len={longest}", str(reached), str(start)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        inputs = [path.read_bytes() for path in reached.iterdir()]
        if keep:
            corpus.keep(name, inputs)
        slow = [data for data in inputs if not _holds(name, data, found)]
        click.echo(
            f"{name}: {_summary(done.stdout)}, {len(inputs)} inputs reached new code" + (", SLOW" if slow else "")
        )
        if done.returncode:
            click.echo(done.stdout[-4000:])
        return not done.returncode and not slow


def _holds(name: str, data: bytes, found: Path) -> bool:
    """Whether the target handles the input correctly without instrumentation."""
    try:
        check(targets.load(name), data)
    except Exception as error:  # noqa: BLE001 - every exception is a finding
        (found / f"{name}-{len(data)}").write_bytes(data)
        click.echo(f"{name}: {error!r}")
        return False
    return True


def _summary(output: str) -> str:
    """The number of inputs that libFuzzer tried."""
    line = next((each for each in output.splitlines() if each.startswith("stat::number_of_executed_units:")), "")
    return f"{line.rpartition(':')[2].strip() or 'no'} inputs tried"


if __name__ == "__main__":
    main(prog_name="python -m fuzz")
