"""Whatever a real API server admits can be read: schema and model say the same.

KMS_ACME_E2E_EXAMPLES is the number of objects that are generated for each kind (10; `make soak`: 100).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from e2e.cluster.cluster import Cluster as RealCluster
from kms.cluster.client import Cluster
from kms.cluster.errors import Invalid, Unavailable, Undecodable
from kms.resources.authorities import CertificateAuthority
from kms.resources.compile import InvalidRules, compile_constraints, compile_narrowing, compile_policy
from kms.resources.credentials import EABCredential
from kms.resources.durations import parse_duration
from kms.resources.kinds import CONFIG_MAPS, ENDPOINT_SLICES, LEASES, SECRETS, Kind
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from tests.support.admitted import objects
from tests.support.crds import KINDS
from tests.support.manifests import Manifest

pytestmark = pytest.mark.requirement("SEC82")
EXAMPLES = int(os.environ.get("KMS_ACME_E2E_EXAMPLES", "10"))


NEVER_WRITTEN = (
    "each token and each proof must be for one of the identifiers",
    "an authorization before any order is for exactly one identifier",
    "contentsRef must be set only together with profile",
)
"""Shapes of orders that no server writes: to the API server they are good, and to us such an order is not there."""


class Admission:
    """Writes objects and reads what the API server made of them."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._runner = asyncio.Runner()
        self._cluster = self._runner.run(Cluster.connect(kubeconfig=kubeconfig))
        self._namespace = namespace
        self._count = 0
        self.admitted = 0

    def close(self) -> None:
        self._runner.run(self._cluster.close())
        self._runner.close()

    def take(self, kind: Kind[Any], body: Manifest) -> Iterator[Any]:
        """The object with its spec, and then with its status, as far as they are admitted; as the model reads them."""
        self._count += 1
        body["metadata"] = {"name": f"example-{self._count}", "namespace": self._namespace}
        for subresource in ("", "status") if "status" in body else ("",):
            try:
                object_ = self._runner.run(self._cluster.apply(kind, body, manager="test", subresource=subresource))
            except Invalid:
                return
            except Undecodable as error:
                if not any(shape in str(error) for shape in NEVER_WRITTEN):
                    raise
                return
            except Unavailable as error:
                # Server-side apply answers 500 to a list that has the same key twice.
                if "duplicate entries" not in str(error):
                    raise
                return
            self.admitted += 1
            yield object_

    def create_foreign(self, kind: Kind[Any], body: dict[str, Any]) -> None:
        """Create the object and list it. Raises ClusterError, also if it cannot be read."""
        self._count += 1
        name = f"example-{self._count}"
        metadata = {**body["metadata"], "name": name, "namespace": self._namespace}
        self._runner.run(self._cluster.apply(kind, {**body, "metadata": metadata}, manager="test"))
        assert self._runner.run(self._cluster.get(kind, self._namespace, name)).metadata.name == name
        assert self._runner.run(self._cluster.list(kind, self._namespace)).unreadable == ()


@pytest.fixture(scope="module")
def admission(installed: RealCluster) -> Iterator[Admission]:
    installed.kubectl("create", "namespace", "admission")
    taking = Admission(str(installed.kubeconfig), "admission")
    yield taking
    taking.close()
    installed.kubectl("delete", "namespace", "admission", "--wait=false")


def compiles(object_: Any) -> None:
    """What both programs do with an object once it is read: durations and networks must be those of the schema."""
    match object_:
        case CertificatePolicy():
            parse_duration(object_.spec.maximum_duration)
            compiled_or_named(compile_policy, object_)
        case EABCredential() if object_.spec.names is not None:
            compiled_or_named(compile_narrowing, object_.spec.names, "example")
        case CertificateAuthority() if object_.spec.internal is not None:
            parse_duration(object_.spec.internal.duration)
            compile_constraints(object_.spec.internal.name_constraints)
        case CertificateProfile() if (acme := object_.spec.enrollment.acme) is not None:
            for each in (acme.order_lifetime, acme.authorization_lifetime, acme.account_retention or "24h"):
                parse_duration(each)


def compiled_or_named(compile_: Any, *arguments: Any) -> None:
    try:
        compile_(*arguments)
    except InvalidRules as error:
        if "ipAddresses" in error.field or "Duration" in error.field:
            raise


@pytest.mark.chance
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_what_is_admitted_can_be_read_and_used(admission: Admission, kind: Kind[Any]) -> None:
    before = admission.admitted

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(objects(kind))
    def read(body: Manifest) -> None:
        for object_ in admission.take(kind, body):
            compiles(object_)

    read()
    assert admission.admitted - before >= EXAMPLES // 5


FOREIGN: tuple[tuple[Kind[Any], dict[str, Any]], ...] = (
    (SECRETS, {"data": {"a": None, "b": ""}, "stringData": {"c": "\u0000\u00fc"}, "type": "example.com/odd"}),
    (SECRETS, {"data": None}),
    (CONFIG_MAPS, {"data": {"a": "", "b": "\u0000"}, "binaryData": {"c": "AAE="}}),
    (CONFIG_MAPS, {"data": None}),
    (
        LEASES,
        {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": "2027-01-01T00:00:00.100000+01:00"}},
    ),
    (LEASES, {"spec": None}),
    (ENDPOINT_SLICES, {"addressType": "IPv4", "endpoints": None, "ports": None}),
    (ENDPOINT_SLICES, {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": None}]}),
    (ENDPOINT_SLICES, {"addressType": "FQDN", "endpoints": [], "ports": [{"name": "", "port": 0}]}),
)
"""Objects of other kinds as clients may write them; the API server fills in, leaves out, or writes null."""


@pytest.mark.parametrize(("kind", "body"), FOREIGN, ids=[f"{each.kind}-{at}" for at, (each, _) in enumerate(FOREIGN)])
def test_an_object_of_another_kind_can_be_read(admission: Admission, kind: Kind[Any], body: dict[str, Any]) -> None:
    metadata = {"labels": {"a": ""}, "annotations": {"b": "\u0000"}}
    admission.create_foreign(kind, {**body, "metadata": metadata})
