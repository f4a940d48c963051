"""`python -m e2e.demo`, which `make demo` calls. Exit codes: 0; 1 for a failure; 2 for wrong usage; 130 for Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from e2e.cluster import sources
from e2e.cluster.errors import ClusterError
from e2e.demo.given import GivenCluster, GivenClusterError
from e2e.demo.introduction import introduction
from e2e.demo.narrator import Narrator, StepFailedError
from e2e.demo.session import Session
from e2e.demo.steps import ROOT, Demo, DemoOnGivenCluster, Ports


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Use this cluster. Nothing is built; the demo removes its objects at the end.",
)
@click.option("--context", help="Context of --kubeconfig. Default: the current one.")
@click.option(
    "--keep", is_flag=True, help="Keep everything running at the end, and print how to continue and how to stop."
)
@click.option("--stop", is_flag=True, help="Stop a demo that was started with --keep.")
def main(*, kubeconfig: Path | None, context: str | None, keep: bool, stop: bool) -> None:
    """Issue a certificate with certbot, from four manifests to a web server that uses it.

    By default, the demo starts its own cluster and stops it at the end. With --kubeconfig, it uses yours.
    """
    given = _given(kubeconfig, context)
    session = Session.of_user()
    if stop:
        _end(session)
        click.echo("The demo is stopped.")
        return
    # SIGTERM stops it like Ctrl-C, through `finally` below.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        click.echo(introduction(given, sources.to_build(os.environ)))
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    _begin(session)
    narrator = Narrator(folder=session.folder, environment={"PYTHONPATH": str(ROOT)})
    done = False
    try:
        shared = (narrator, session, Ports.free())
        demo = DemoOnGivenCluster(*shared, given=given) if given else Demo(*shared)
        demo.run()
        done = True
    except StepFailedError as failure:
        narrator.say(f"\nFAILED in the step “{narrator.title}”: {failure}.")
        if failure.log:
            narrator.tail(failure.log)
        sys.exit(1)
    except KeyboardInterrupt:
        narrator.say("\nStopped.")
        sys.exit(130)
    finally:
        if not (done and keep):
            _end(session)
    narrator.step("Done.")
    if keep:
        _say_how_to_go_on(narrator, session)


def _given(kubeconfig: Path | None, context: str | None) -> GivenCluster | None:
    if kubeconfig is None:
        if context is not None:
            raise click.UsageError("--context requires --kubeconfig")
        return None
    try:
        given = GivenCluster.named(kubeconfig, context)
    except GivenClusterError as error:
        raise click.UsageError(str(error)) from error
    if shutil.which("kubectl") is None:
        raise click.UsageError("--kubeconfig requires kubectl, which is not on PATH")
    return given


def _begin(session: Session) -> None:
    try:
        session.begin()
    except GivenClusterError as error:
        raise click.ClickException(f"cannot remove an earlier demo: {error}") from error


def _end(session: Session) -> None:
    try:
        session.end()
    except GivenClusterError as error:
        again = f"{sys.executable} -m e2e.demo --stop"
        raise click.ClickException(f"cannot remove everything: {error}\nTo try again: {again}") from error


def _say_how_to_go_on(narrator: Narrator, session: Session) -> None:
    narrator.say("Everything keeps running. To continue:")
    for name in ("KUBECONFIG", "PATH"):
        narrator.say(f"  export {name}={narrator.environment[name]}")
    narrator.say(f"  cd {session.folder}    # ca.crt, chain.crt, certbot/, logs")
    narrator.say("  kubectl get kms,kms-records -A; kubectl describe acmeorders -A; tail -f kms-acme.log")
    narrator.say(f"To stop it:\n  {sys.executable} -m e2e.demo --stop")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
