"""The layers of the image, on a small image in a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.image.split_layers import split

CONTAINERFILE = Path(__file__).parents[2] / "deploy" / "Containerfile"
PACKAGES = "opt/kms-acme/lib/python3.13/site-packages"
RECORD = """\
../../../bin/kms-acme,sha256=x,1
../../../bin/not-copied,sha256=x,1
acme_server/__init__.py,,
acme_server/api/order.py,,
kms_acme-0.1.0.dist-info/RECORD,,
"""
OURS = {
    "opt/kms-acme/bin/kms-acme",
    "opt/kms-acme/sbom.cdx.json",
    f"{PACKAGES}/acme_server/__init__.py",
    f"{PACKAGES}/acme_server/__pycache__/__init__.cpython-313.pyc",
    f"{PACKAGES}/acme_server/api/order.py",
    f"{PACKAGES}/kms_acme-0.1.0.dist-info/RECORD",
}
OTHERS = {
    "opt/kms-acme/bin/python3",
    "opt/kms-acme/pyvenv.cfg",
    f"{PACKAGES}/aiohttp/__init__.py",
    f"{PACKAGES}/aiohttp-3.dist-info/RECORD",
}
BASE = {"usr/bin/python3.13", "etc/passwd"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    for path in OURS | OTHERS | BASE:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(RECORD if path.endswith("kms_acme-0.1.0.dist-info/RECORD") else path)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    return root


def files(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def test_our_own_files_are_the_last_layer_and_those_of_others_the_one_below(image: Path, tmp_path: Path) -> None:
    split(image, tmp_path / "layers")
    assert files(tmp_path / "layers" / "program") == OURS
    assert files(tmp_path / "layers" / "dependencies") == OTHERS
    assert files(image) == BASE
    assert (image / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_an_image_without_our_distribution_is_an_error(image: Path, tmp_path: Path) -> None:
    (image / PACKAGES / "kms_acme-0.1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(ValueError, match="0 distributions match"):
        split(image, tmp_path / "layers")


def test_the_image_has_the_layers_in_the_order_of_their_changes() -> None:
    last = CONTAINERFILE.read_text().rpartition("\nFROM scratch\n")[2]
    copied = re.findall(r"^COPY --from=runtime (\S+) /$", last, re.MULTILINE)
    assert copied == ["/image", "/layers/dependencies", "/layers/program"]
