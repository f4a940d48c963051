"""What OpenSSL makes of a CA's request as the page about corporate roots says, without a cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.stories.snippets import CORPORATE_ROOT, snippets
from kms.clock import system_clock
from kms.pki.ca import Asked, NameConstraints, certificate_request, check_answer, read_answer
from kms.pki.keys import fingerprint
from tests.support import pki

ASKED = Asked(
    common_name="Example Corporate Issuing CA",
    subject={"organizations": ("Example",)},
    path_length=0,
    constraints=NameConstraints(permitted_domains=("apps.example.com",)),
)
_OURS = re.compile(r"^(?:kubectl|kms-acme) (?:.*\\\n)*.*\n", re.MULTILINE)
"""Commands for a cluster, which test_documentation.py runs."""


@pytest.mark.requirement("X51")
@pytest.mark.parametrize(("algorithm", "size"), [("ECDSA", 384), ("RSA", 2048), ("Ed25519", None)])
def test_the_commands_of_the_page_make_certificates_that_are_taken(
    tmp_path: Path, algorithm: str, size: int | None
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = pki.key(algorithm, size, "ceremony")
    (tmp_path / "corporate.csr").write_text(certificate_request(ASKED, key))
    create, *blocks = (block.text for block in snippets(CORPORATE_ROOT))
    assert "signedBy: Request" in create
    script = "".join(("set -e\n", *(_OURS.sub("", each) for each in blocks)))
    assert script.count("openssl x509 -req") == 3
    done = subprocess.run(
        ("bash", "-c", script),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"= {fingerprint(key.public_key())}" in done.stdout, "the fingerprint that kms-acme ca request shows"
    for certificate, root in (("corporate", "root"), ("renewed", "root"), ("cross", "other")):
        answer = (tmp_path / f"{certificate}.crt").read_text() + (tmp_path / root / "root.crt").read_text()
        check_answer(read_answer(answer), ASKED, key.public_key(), now=system_clock())
    assert "BEGIN X509 CRL" in (tmp_path / "root" / "root.crl").read_text()
