"""An admission policy refuses orders and their status: clients wait, people are told, and go on once it is gone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from e2e.cluster import Cluster
from e2e.load.client import Client, Order, Refused, http01_of
from e2e.support.programs import Server
from tests.support import pki
from tests.support.eventually import becomes, eventually, hurried, until
from tests.support.installation import Installation, refusal

MESSAGE = "the audit has not approved this namespace"


@contextmanager
def refusing(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Refuse all writes of orders and their status in the namespace, with 422 as policies do by default."""
    api = {"apiVersion": "admissionregistration.k8s.io/v1"}
    rule = {
        "apiGroups": ["pki.kms.hanzo.ai"],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["acmeorders", "acmeorders/status"],
    }
    policy = {
        **api,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": MESSAGE}],
        },
    }
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    binding = {
        **api,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": selector},
        },
    }
    for each in (policy, binding):
        cluster.kubectl("create", "--filename=-", stdin=json.dumps(each))
    try:
        yield
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            cluster.kubectl("delete", kind, namespace)


async def waits(call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the server asks the client to repeat the request when a person has lifted the refusal."""
    try:
        await call()
    except Refused as refused:
        answer = refused.answer
        assert (answer.status, answer.problem_type) == (503, "serverInternal")
        assert MESSAGE not in answer.body.decode()
        return answer.headers["Retry-After"] == "30"  # less where the API server of a busy machine does not answer
    return False


async def test_orders_that_a_policy_refuses_wait_for_a_person_and_go_on_afterwards(
    installation: Installation, team: str
) -> None:
    server = installation.programs.servers[0]
    async with installation.client(installation.open_profile(team), servers=[server.url]) as patient:
        client = Client(patient.exchange, patient.key, account_url=patient.account_url, sleep=hurried)
        ready, pending = await installation.proven(client, "ready.test"), await client.new_order(["pending.test"])

        async def order() -> Order:
            return await client.new_order(["new.test"])

        async def finalize() -> Order:
            return await client.finalize(ready, pki.csr("ready.test"))

        with refusing(installation.cluster, team):
            await becomes(lambda: waits(order))
            await becomes(lambda: waits(finalize))
            (challenge,) = [http01_of(await client.authorization(url)) for url in pending.authorizations]
            installation.answerer.add(challenge["token"], client.key.thumbprint)
            refused = refused_updates(server)
            await client.respond(challenge)
            await until(lambda: refused_updates(server) > refused)

        async def goes_on() -> bool:
            return not await refusal(order()) and not await refusal(finalize())

        await becomes(goes_on)
        assert (await client.order(ready.url)).status == "valid"

        async def is_ready() -> bool:
            return (await client.order(pending.url)).status == "ready"

        await becomes(is_ready)
    eventually(
        lambda: {each["action"] for each in events(installation, team)} == {"Create", "Update"},
        why=lambda: events(installation, team),
    )
    for each in events(installation, team):
        assert each["regarding"]["kind"] == "CertificateProfile"
        assert MESSAGE in each["note"]
    described = installation.cluster.kubectl("describe", "certificateprofile", "--namespace", team)
    assert "WriteRefused" in described
    assert MESSAGE in server.log.read_text()


def refused_updates(server: Server) -> float:
    """How many updates of orders the server says that the API server has refused."""
    metric = 'kms_acme_api_refusals_total{kind="acmeorders",verb="update"}'
    lines = server.get("/metrics")[1].splitlines()
    return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(metric))


def events(installation: Installation, namespace: str) -> list[dict[str, Any]]:
    """The Events of refused writes, as events.k8s.io/v1."""
    found = installation.objects("events.events.k8s.io", namespace)
    return [each for each in found if each["reason"] == "WriteRefused"]
