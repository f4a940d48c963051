"""The API server reads every certificate request that may go to another CA unchanged."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings

from e2e.cluster.cluster import Cluster
from kms.pki.csr import parse_request
from kms.pki.verbatim import requested_usages, verbatim_violations
from tests.support.requests import POLICY, SUBJECT, USAGES, harmless

REQUESTS = 60


def manifest(number: int, der: bytes) -> dict[str, object]:
    """The CertificateSigningRequest for a signer."""
    pem = x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"kms-{number}"},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": "example.com/web",
            "usages": list(requested_usages(parse_request(der), USAGES)),
        },
    }


@pytest.mark.requirement("X30")
def test_the_api_server_reads_what_may_go_unchanged(installed: Cluster) -> None:
    found: list[bytes] = []

    @settings(max_examples=REQUESTS, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(harmless())
    def collect(der: bytes) -> None:
        assert not verbatim_violations(parse_request(der), usages=USAGES, subject=SUBJECT, policy=POLICY)
        found.append(der)

    collect()
    items = [manifest(*each) for each in enumerate(found)]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    answer = installed.kubectl("create", "--dry-run=server", "--filename=-", stdin=listed, limit=120)
    assert answer.count("created") == len(found) >= REQUESTS // 2
