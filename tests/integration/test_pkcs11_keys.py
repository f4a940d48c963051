"""A CA with its key in a PKCS #11 token, by the commands of docs/key-stores.md: made once, and never made again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from e2e.cluster.cluster import Cluster
from e2e.stories.snippets import KEY_STORES, run_snippets
from kms.pki.certificate import certifies
from kms.resources.kinds import AUTHORITIES
from tests.support.manifests import manifest
from tests.support.operating import RELEASE, Kubectl, OperatorProcess, start_operator
from tests.support.softhsm import MODULE, running_token

pytestmark = pytest.mark.cluster


def chain_of(kubectl: Kubectl, name: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(kubectl.get(f"kca/{name}")["status"]["chain"].encode())


@pytest.fixture
def operator(installed: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that may load SoftHSM, which has no token yet."""
    with running_token(tmp_path, initialize=False):
        operator = start_operator(
            installed, tmp_path / "operator.log", hurried=True, pkcs11_modules=(MODULE,), lease_name="key-stores"
        )
        yield operator
        operator.kill()


@pytest.mark.requirement("X57", "X58")
def test_a_ca_with_its_key_in_a_token_is_made_and_never_made_again(
    installed: Cluster, operator: OperatorProcess, tmp_path: Path
) -> None:
    kubectl = Kubectl(installed, RELEASE)
    try:
        run_snippets(KEY_STORES, "hsm", folder=tmp_path, environment=installed.env)
        (root,) = chain_of(kubectl, "hsm")
        assert certifies(root, root)
        below: dict[str, Any] = manifest(AUTHORITIES, {"internal.issuerRef": {"name": "hsm"}}, name="below")
        kubectl.apply(below)
        kubectl.becomes("kca/below", "Issued", seconds=60)
        intermediate, above = chain_of(kubectl, "below")
        assert (above, certifies(root, intermediate)) == (root, True)
        # The token is another one from now on, with the same label and PIN.
        for each in (tmp_path / "tokens").iterdir():
            shutil.rmtree(each)
        run_snippets(KEY_STORES, "softhsm2-util", folder=tmp_path, environment=installed.env)
        kubectl.becomes("kca/hsm", "KeyLost", seconds=60)
        assert chain_of(kubectl, "hsm") == [root]
    finally:
        kubectl("delete", "kca/below", "kca/hsm", "secret/hsm", "--ignore-not-found", "--wait=false")
    assert "1234" not in operator.log.read_text()
