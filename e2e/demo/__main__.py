"""`python -m e2e.demo`, which `make demo` calls."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from e2e.demo.narrator import Narrator, StepFailedError
from e2e.demo.session import Session
from e2e.demo.steps import ROOT, Demo, Ports


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keep", is_flag=True, help="Leave all running at the end, and say how to go on and how to stop it.")
@click.option("--stop", is_flag=True, help="Stop what an earlier run with --keep left.")
def main(*, keep: bool, stop: bool) -> None:
    """From four manifests to a certificate in use, with certbot, on a cluster of its own."""
    session = Session.of_user()
    if stop:
        session.end()
        click.echo("The demo is stopped.")
        return
    # SIGTERM ends it as Ctrl-C does: by way of the `finally` below.
    signal.signal(signal.SIGTERM, _interrupt)
    session.begin()
    narrator = Narrator(folder=session.folder, environment={"PYTHONPATH": str(ROOT)})
    done = False
    try:
        Demo(tell=narrator, session=session, ports=Ports.free()).run()
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
            session.end()
    narrator.step("Done.")
    if keep:
        exports = {name: narrator.environment[name] for name in ("KUBECONFIG", "PATH")}
        narrator.say("Everything is left running. To go on:")
        for name, value in exports.items():
            narrator.say(f"  export {name}={value}")
        narrator.say(f"  cd {session.folder}    # ca.crt, chain.crt, certbot/, logs")
        narrator.say("  kubectl get kms -A; kubectl -n pki describe acmeorders; tail -f kms-acme.log")
        narrator.say(f"To stop it:\n  {sys.executable} -m e2e.demo --stop")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


main()
