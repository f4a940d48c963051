"""A CA with its key in OpenBao, by the commands of docs/key-stores.md, and a certificate from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from e2e.stories.snippets import KEY_STORES, run_snippets
from e2e.support.enrollment import enrollment_of
from kms.pki.certificate import certifies
from kms.resources.kinds import POLICIES, PROFILES
from tests.support.installation import Installation
from tests.support.openbao import OpenBao
from tests.support.operating import RELEASE, Kubectl

pytestmark = pytest.mark.cluster


@pytest.mark.requirement("X53", "X56")
async def test_a_ca_with_its_key_in_openbao_issues_certificates(
    installation: Installation, openbao: OpenBao, tmp_path: Path
) -> None:
    kubectl, bundle = Kubectl(installation.cluster, RELEASE), tmp_path / "openbao-ca.pem"
    bundle.write_text(openbao.ca_bundle)
    address = {"BAO_ADDR": openbao.url, "BAO_TOKEN": openbao.root_token, "BAO_CACERT": str(bundle)}
    environment = {**installation.cluster.env, "HOME": str(tmp_path), **address}
    try:
        run_snippets(KEY_STORES, "bao ", folder=tmp_path, environment=environment)
        authority = kubectl.get("kca/issuing")
        assert authority["status"]["keyVersion"] == 1
        assert kubectl.reason("kca/issuing", "KeyProtection") == "Protected"
        held = kubectl.secret(f"ca-{authority['metadata']['uid']}")
        assert held.keys() == {"tls.crt", "key-store", "role-id", "secret-id"}
        references = {"issuerRef": {"name": "issuing"}, "policyRef": {"name": "stored"}}
        installation.apply(RELEASE, POLICIES, {"dnsNames": {"allowed": ["**.test"]}}, name="stored")
        acme = {"externalAccountBinding": "Disabled"}
        installation.apply(RELEASE, PROFILES, {**references, "enrollment": {"acme": acme}}, name="stored")
        installation.wait(RELEASE, "certificateprofile/stored")
        async with installation.client(enrollment_of(installation.cluster, RELEASE, "stored")) as client:
            issued = await client.obtain(["stored.test"], installation.answerer.add)
        leaf, issuer, *_ = x509.load_pem_x509_certificates(issued.chain.encode())
        assert [issuer] == x509.load_pem_x509_certificates(authority["status"]["chain"].encode())
        assert certifies(issuer, leaf)
    finally:
        kubectl("delete", "kprof/stored", "kpol/stored", "kca/issuing", "--ignore-not-found", "--wait=false")
