"""Shell completion: the scripts for shells, and names from the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import ShellComplete, get_completion_class

from kms_acme.cli import options

_SECONDS = 3.0
"""How long a person waits for names after pressing Tab."""
_MOST = 500
"""Names that are offered."""

_FILES, _NO_FILES = 0, 4
"""Directives of cobra's completion: complete names of files if nothing else is offered, or do not."""

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and names of objects in a shell.

    \b
    Examples:
        source <(kms-acme completion bash)
        kms-acme completion fish >~/.config/fish/completions/kms-acme.fish
    """  # noqa: D301 - the backspace tells click not to rewrap the lines
    class_ = get_completion_class(shell)
    if class_ is None:
        raise click.ClickException(f"click has no completion for {shell}")
    root = ctx.find_root()
    click.echo(class_(root.command, {}, "kms-acme", "_KMS_ACME_COMPLETE").source())


def completions_for_kubectl(root: click.Command, words: Sequence[str]) -> list[str]:
    """The lines of the program kubectl_complete-kms, which kubectl 1.26 and newer runs with the words of the line.

    They are those of cobra: a completion with its help, and at the end a directive. The last word is not finished.
    """
    *before, incomplete = words or ("",)
    found = ShellComplete(root, {}, "kubectl kms", "_KMS_ACME_COMPLETE").get_completions(before, incomplete)
    lines = [f"{each.value}\t{each.help}" if each.help else each.value for each in found if each.type == "plain"]
    is_path = any(each.type in {"file", "dir"} for each in found)
    return [*lines, f":{_FILES if is_path else _NO_FILES}"]


def complete_objects(kind: str) -> Complete:
    """Complete `NAMESPACE/NAME` of a kind, such as CertificateProfile; `NAME` with --namespace."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        namespace = ctx.params.get("namespace")
        names = _names(ctx, kind, namespace)
        shown = [name if namespace else f"{home}/{name}" for home, name in names]
        return sorted(each for each in shown if each.startswith(incomplete))

    return complete


def complete_namespaces(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the namespaces that have profiles."""
    found = {home for home, _ in _names(ctx, "CertificateProfile", None)}
    return sorted(each for each in found if each.startswith(incomplete))


def _names(ctx: click.Context, kind: str, namespace: str | None) -> list[tuple[str, str]]:
    """Namespaces and names of objects; none if the cluster does not answer in time or does not permit it."""
    from kms.cluster.client import Cluster  # noqa: PLC0415 - takes half a second
    from kms.cluster.errors import ClusterError  # noqa: PLC0415
    from kms.resources import kinds  # noqa: PLC0415

    found = {each.kind: each for each in vars(kinds).values() if isinstance(each, kinds.Kind)}[kind]
    values: dict[str, Any] = {"kubeconfig": None, "context": None, **ctx.params}

    async def read() -> list[tuple[str, str]]:
        cluster = await Cluster.connect(kubeconfig=options.kubeconfig(values), context=values["context"])
        try:
            page = await cluster.metadata_page(found, namespace, limit=_MOST, token="")
        finally:
            await cluster.close()
        return [(each.metadata.namespace, each.metadata.name) for each in page.items]

    # A shell shows nothing but completions, so there is no place for an error.
    with suppress(ClusterError, TimeoutError):
        return asyncio.run(asyncio.wait_for(read(), _SECONDS))
    return []
