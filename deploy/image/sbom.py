"""Writes a software bill of materials in CycloneDX JSON (ECMA-424) for the files of an image.

    python3 sbom.py VERSION < files > sbom.cdx.json

It names the Python packages of the virtual environment, the interpreter, and the Debian packages whose files the image
has. The same files give the same document. It runs in the build of the image, without other packages.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

ENVIRONMENT = Path("/opt/kms-acme")
DPKG = Path("/var/lib/dpkg")
_MADE = {Path("/etc/ssl/certs/ca-certificates.crt"): "ca-certificates"}
"""Files that a package makes when it is installed, so that it does not list them."""
SPECIFICATION = "1.6"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://pki.kms.hanzo.ai/sbom")


@dataclass(frozen=True, order=True)
class Component:
    """A package. `license` is an SPDX expression, empty if its metadata has none."""

    purl: str
    name: str
    version: str
    license: str = ""

    def document(self) -> dict[str, Any]:
        """The component as CycloneDX has it."""
        found = {
            "type": "library",
            "bom-ref": self.purl,
            "name": self.name,
            "version": self.version,
            "purl": self.purl,
        }
        return found | ({"licenses": [{"expression": self.license}]} if self.license else {})


def python_packages(found: Iterable[Distribution]) -> Iterator[Component]:
    """The components of installed distributions, by their normalized names (PyPA)."""
    for each in found:
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        (expression,) = each.metadata.get_all("License-Expression") or ("",)
        yield Component(f"pkg:pypi/{quote(name)}@{quote(each.version)}", name, each.version, expression)


def debian_packages(files: Iterable[Path], dpkg: Path = DPKG, *, release: str = "") -> Iterator[Component]:
    """The components of the Debian packages that own one of the files; `release` as in `debian-12`."""
    owners = {**_MADE, **dict(_owners(dpkg))}
    owning = {owners[each] for each in files if each in owners}
    for stanza in _stanzas(dpkg / "status"):
        name, version, architecture = (stanza.get(each, "") for each in ("Package", "Version", "Architecture"))
        if name in owning:
            distro = f"&distro={release}" if release else ""
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}{distro}"
            yield Component(purl, name, version)


def _owners(dpkg: Path) -> Iterator[tuple[Path, str]]:
    """Each file with the name of its package. Where /lib is a link, packages still name files in it."""
    for listing in sorted((dpkg / "info").glob("*.list")):
        package = listing.stem.partition(":")[0]
        for line in listing.read_text(encoding="utf-8").splitlines():
            yield Path(line), package
            if line.startswith("/lib"):
                yield Path(f"/usr{line}"), package


def _stanzas(status: Path) -> Iterator[Mapping[str, str]]:
    if not status.exists():
        return
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        fields = (line.partition(": ") for line in paragraph.splitlines() if line[:1].isalpha())
        yield {name: value for name, _, value in fields}


def interpreter(files: Iterable[Path], owned: Iterable[Component]) -> Iterator[Component]:
    """The interpreter, if it is of no Debian package."""
    version = platform.python_version()
    if not any(each.name.startswith("python3") for each in owned) and any("python3" in each.name for each in files):
        yield Component(f"pkg:generic/python@{version}", "python", version, "Python-2.0")


def document(version: str, components: Iterable[Component]) -> dict[str, Any]:
    """The bill of materials of kms-acme in that version."""
    listed = [each.document() for each in sorted(set(components))]
    root = f"pkg:generic/kms-acme@{quote(version)}"
    contents = {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": root, "name": "kms-acme", "version": version, "purl": root}
        },
        "components": listed,
        "dependencies": [{"ref": root, "dependsOn": [each["bom-ref"] for each in listed]}],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(contents, sort_keys=True))
    return (
        {"$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json"}
        | contents
        | {"serialNumber": f"urn:uuid:{serial}"}
    )


def main(version: str, files: frozenset[Path]) -> None:
    """Print the document."""
    packages = [str(each) for each in ENVIRONMENT.glob("lib/python3*/site-packages")]
    python = python_packages(distributions(path=packages))
    system = platform.freedesktop_os_release()
    release = f"{system['ID']}-{system['VERSION_ID']}" if "VERSION_ID" in system else ""
    debian = tuple(debian_packages(files, release=release))
    found = (*(each for each in python if each.name != "kms-acme"), *debian, *interpreter(files, debian))
    json.dump(document(version, found), sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1], frozenset(Path(line.rstrip("\n")) for line in sys.stdin))
