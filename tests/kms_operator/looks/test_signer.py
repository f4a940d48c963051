"""Signers of Kubernetes: only those of cert-manager tell who signs."""

from __future__ import annotations

from typing import Any

import pytest

from kms.resources.certmanager import ObservedIssuer
from kms.resources.kinds import CLUSTER_ISSUERS, ISSUERS, Kind
from kms_operator.looks.signer import look_at_signer
from kms_operator.observation import Observation
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.operated import SETTINGS, authority, metadata

LOOP = {"acme": {"server": f"{SETTINGS.external_url}/acme/pki/web/directory"}}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


async def look(api: FakeApiServer, signer: str) -> Observation:
    one = authority("corporate", external={"signer": {"name": signer}})
    return await look_at_signer(SETTINGS, await api.cluster(), one, None)


def put(api: FakeApiServer, kind: Kind[Any], spec: Any, namespace: str = "pki") -> None:
    observed = Kind(kind.group, kind.version, kind.kind, kind.plural, ObservedIssuer, kind.namespaced)
    meta = metadata("corp.orate", namespace if kind.namespaced else "")
    api.put(observed, ObservedIssuer(metadata=meta, spec=spec, status=READY))


async def test_a_signer_of_others_is_assumed_to_exist() -> None:
    async with running_api() as api:
        found = await look(api, "example.com/web")
        assert api.requests == []
    assert (found.status, found.reason) == ("Unknown", "NotObservable")
    assert "signer example.com/web" in found.message


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("kind", "signer"),
    [
        (CLUSTER_ISSUERS, "clusterissuers.cert-manager.io/corp.orate"),
        (ISSUERS, "issuers.cert-manager.io/pki.corp.orate"),
    ],
    ids=["cluster", "namespace"],
)
async def test_an_issuer_of_cert_manager_behind_a_signer_is_looked_at(kind: Kind[Any], signer: str) -> None:
    async with running_api() as api:
        assert (await look(api, signer)).reason == "IssuerNotFound"
        put(api, kind, LOOP)
        assert (await look(api, signer)).reason == "IssuerLoops"
        put(api, kind, {"ca": {}})
        found = await look(api, signer)
    # It can sign; whether cert-manager takes requests of this kind is not known.
    assert (found.status, found.reason) == ("Unknown", "NotObservable")


@pytest.mark.requirement("X2")
async def test_an_issuer_of_another_namespace_is_not_read() -> None:
    async with running_api() as api:
        put(api, ISSUERS, LOOP, "other")
        found = await look(api, "issuers.cert-manager.io/other.corp.orate")
        assert api.requests == []
    assert found.status == "Unknown"
