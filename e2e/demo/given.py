"""The user's own cluster: the objects that the demo creates there, and their removal.

The demo creates one namespace with a new name, and the CustomResourceDefinitions that the cluster lacks. The programs
get permissions in that namespace only.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
LIMIT = 180.0
"""Time limit of kubectl in seconds."""


class GivenClusterError(Exception):
    """The user's cluster is not usable; the text says what to do."""


@dataclass(frozen=True)
class GivenCluster:
    """A context of a kubeconfig."""

    kubeconfig: Path
    context: str

    @classmethod
    def named(cls, kubeconfig: Path, context: str | None) -> GivenCluster:
        """Find the context with this name, or the current one.

        Raises GivenClusterError if the file has no such context.
        """
        try:
            config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise GivenClusterError(f"{kubeconfig} is not a kubeconfig: {error}") from error
        config = config if isinstance(config, Mapping) else {}
        names = [str(each.get("name")) for each in config.get("contexts") or []]
        wanted = context or config.get("current-context")
        if wanted not in names:
            found = f"it has {', '.join(names)}" if names else "it has none"
            asked = f"no context {wanted}" if wanted else "no current context, name one"
            raise GivenClusterError(f"{kubeconfig} has {asked}: {found}")
        return cls(kubeconfig.resolve(), str(wanted))


@dataclass(frozen=True)
class Traces:
    """The objects of a demo in a cluster. They are recorded before they are created."""

    kubectl: str
    kubeconfig: str
    namespace: str
    definitions: tuple[str, ...] = ()
    """The CustomResourceDefinitions that the demo creates."""

    @classmethod
    def planned(cls, kubectl: str, kubeconfig: Path, definitions: Iterable[str]) -> Traces:
        """Plan a namespace with a new name, and the definitions that the cluster lacks."""
        traces = cls(kubectl, str(kubeconfig), f"kms-acme-demo-{secrets.token_hex(3)}")
        there = traces.definitions_there()
        return cls(kubectl, str(kubeconfig), traces.namespace, tuple(each for each in definitions if each not in there))

    @classmethod
    def read(cls, file: Path) -> Traces | None:
        """Read the record of a demo, if it exists."""
        if not file.exists():
            return None
        noted = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**noted, "definitions": tuple(noted["definitions"])})

    def write(self, file: Path) -> None:
        """Write the record."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def definitions_there(self) -> set[str]:
        """List the names of all CustomResourceDefinitions in the cluster."""
        said = self._kubectl("get", "customresourcedefinitions", "--output=name")
        return {each.partition("/")[2] for each in said.split()}

    def remove(self) -> list[str]:
        """Delete the namespace, then the definitions. Definitions with other objects stay and are returned.

        Raises GivenClusterError if the cluster refuses.
        """
        self._kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s")
        there = self.definitions_there()
        ours = [each for each in self.definitions if each in there]
        if not ours:
            return []
        others = self._kubectl("get", ",".join(ours), "--all-namespaces", "--output=name").split()
        if not others:
            self._kubectl("delete", "customresourcedefinitions", *ours, "--ignore-not-found", "--timeout=60s")
        return others

    def _kubectl(self, *arguments: str) -> str:
        command = [self.kubectl, f"--kubeconfig={self.kubeconfig}", *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise GivenClusterError(f"kubectl {' '.join(arguments)} did not end within {LIMIT:.0f} s") from error
        if done.returncode:
            raise GivenClusterError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout


def confined(manifests: Iterable[Manifest], namespace: str) -> Iterator[Manifest]:
    """Restrict manifests to one namespace: bound ClusterRoles become Roles, Namespaces and unbound roles go."""
    manifests = list(manifests)
    bound = {each["roleRef"]["name"] for each in manifests if each["kind"] == "ClusterRoleBinding"}
    for each in manifests:
        name = each["metadata"]["name"]
        match each["kind"]:
            case "Namespace":
                continue
            case "ClusterRole" if name not in bound:
                continue
            case "ClusterRole":
                yield _moved(each, namespace, kind="Role", name=f"{name}-resources")
            case "ClusterRoleBinding":
                role = {**each["roleRef"], "kind": "Role", "name": f"{each['roleRef']['name']}-resources"}
                yield {**_moved(each, namespace, kind="RoleBinding", name=f"{name}-resources"), "roleRef": role}
            case _:
                yield _moved(each, namespace, kind=each["kind"], name=name)


def _moved(manifest: Manifest, namespace: str, *, kind: str, name: str) -> Manifest:
    moved = {**manifest, "kind": kind, "metadata": {**manifest["metadata"], "name": name, "namespace": namespace}}
    if "subjects" in moved:
        moved["subjects"] = [{**each, "namespace": namespace} for each in moved["subjects"]]
    return moved


def documents(*files: Path) -> Iterator[Manifest]:
    """Read the manifests in these files."""
    for file in files:
        yield from (each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each)
