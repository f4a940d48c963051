"""`python -m fuzz`: search for inputs that break a parser, guided by coverage."""

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

HELP = """Fuzz the parsers of what strangers send, for some minutes altogether, a process a core.

Without TARGETS all of them, each for the same time. It begins with real inputs and with those of fuzz/corpus/; what it
finds is replayed without instruments, to hold the target to its 50 ms of CPU. An input that breaks a target is written
to fuzz/found/. Needs atheris: `make fuzz` installs it.

Exit codes: 0; 1 where a target broke; 2 for wrong usage."""


@click.command(help=HELP)
@click.argument("names", metavar="[TARGETS]...", nargs=-1, type=click.Choice(targets.NAMES))
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=10, show_default=True)
@click.option("--keep", is_flag=True, help="Add what reached new code to fuzz/corpus/.")
def main(*, names: Sequence[str], minutes: float, keep: bool) -> None:
    """Run it."""
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
        sys.exit(f"broken: {', '.join(broken)}; the inputs are in fuzz/found/")


def _fuzz(name: str, seconds: int, *, keep: bool) -> bool:
    """Whether the target stood it."""
    with tempfile.TemporaryDirectory() as folder:
        begun, reached = Path(folder) / "begun", Path(folder) / "reached"
        for each in (begun, reached):
            each.mkdir()
        for number, data in enumerate((*seeds.of(name), *corpus.found(name))):
            (begun / str(number)).write_bytes(data)
        found = ROOT / "fuzz" / "found"
        found.mkdir(exist_ok=True)
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/{name}-", "-print_final_stats=1"]
        longest = targets.load(name).longest
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", "fuzz.guided", name, *options, f"-max_len={longest}", str(reached), str(begun)],
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
        click.echo(f"{name}: {_told(done.stdout)}, {len(inputs)} inputs reached new code" + (", SLOW" if slow else ""))
        if done.returncode:
            click.echo(done.stdout[-4000:])
        return not done.returncode and not slow


def _holds(name: str, data: bytes, found: Path) -> bool:
    """Whether the input is good without instruments too."""
    try:
        check(targets.load(name), data)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
        (found / f"{name}-{len(data)}").write_bytes(data)
        click.echo(f"{name}: {error!r}")
        return False
    return True


def _told(output: str) -> str:
    """How many inputs libFuzzer tried."""
    line = next((each for each in output.splitlines() if each.startswith("stat::number_of_executed_units:")), "")
    return f"{line.rpartition(':')[2].strip() or 'no'} inputs tried"


if __name__ == "__main__":
    main(prog_name="python -m fuzz")
