"""The bill of materials of the image: what it names, and that it follows from the files alone."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from os import PathLike
from pathlib import Path

import pytest

from deploy.image.sbom import Component, debian_packages, document, interpreter, python_packages

pytestmark = pytest.mark.requirement("SEC68")

STATUS = """Package: libc6
Status: install ok installed
Version: 1:2.36-9+deb12u14
Architecture: amd64
Description: GNU C Library
 of which a line looks like a field: no

Package: dash
Version: 0.5.12
Architecture: amd64
"""


class Installed(Distribution):
    """A distribution with this metadata."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: str | PathLike[str]) -> Path:
        return Path(path)


def test_python_packages_have_normalized_names_and_licenses() -> None:
    one = Installed("Metadata-Version: 2.4\nName: Typing_Extensions\nVersion: 4.16.0\nLicense-Expression: PSF-2.0\n")
    other = Installed("Metadata-Version: 2.1\nName: h11\nVersion: 0.16.0+local\n")
    assert list(python_packages([one, other])) == [
        Component("pkg:pypi/typing-extensions@4.16.0", "typing-extensions", "4.16.0", "PSF-2.0"),
        Component("pkg:pypi/h11@0.16.0%2Blocal", "h11", "0.16.0+local"),
    ]
    assert len(list(python_packages(distributions()))) > 30


def test_debian_packages_are_those_that_own_a_file(tmp_path: Path) -> None:
    (tmp_path / "info").mkdir()
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "info/libc6:amd64.list").write_text("/.\n/lib/x86_64-linux-gnu/libc.so.6\n")
    (tmp_path / "info/dash.list").write_text("/bin/dash\n")
    files = [Path("/usr/lib/x86_64-linux-gnu/libc.so.6"), Path("/opt/kms-acme/bin/kms-acme")]
    (found,) = debian_packages(files, tmp_path, release="debian-12")
    purl = "pkg:deb/debian/libc6@1%3A2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12"
    assert found == Component(purl, "libc6", "1:2.36-9+deb12u14")
    assert list(debian_packages(files, tmp_path / "none")) == []


def test_an_interpreter_of_no_package_is_named() -> None:
    files = [Path("/usr/local/bin/python3.13")]
    (found,) = interpreter(files, ())
    assert re.fullmatch(r"pkg:generic/python@3\.\d+\.\d+", found.purl)
    assert list(interpreter(files, [Component("p", "python3.11-minimal", "3.11.2")])) == []


def test_the_same_files_give_the_same_document_whatever_their_order() -> None:
    components = [Component(f"pkg:pypi/{name}@1", name, "1", "MIT") for name in "cab"]
    one, other = document("1.2.3", components), document("1.2.3", components[::-1])
    assert one == other
    assert one["serialNumber"] != document("1.2.4", components)["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one["serialNumber"])
    references = [each["bom-ref"] for each in one["components"]]
    assert references == sorted(set(references))
    assert one["dependencies"] == [{"ref": one["metadata"]["component"]["bom-ref"], "dependsOn": references}]
    assert one["components"][0] == {
        "type": "library",
        "bom-ref": "pkg:pypi/a@1",
        "name": "a",
        "version": "1",
        "purl": "pkg:pypi/a@1",
        "licenses": [{"expression": "MIT"}],
    }
