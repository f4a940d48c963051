"""A running installation for tests: a cluster, the operator, a server, DNS and an http-01 server for all names."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster
from e2e.load.client import Client, Order, Refused, http01_of
from e2e.load.exchange import Exchange
from e2e.load.keys import AccountKey, ExternalAccount
from e2e.support import dns, http01
from e2e.support.enrollment import Enrollment, enrollment_of, external_account_of
from e2e.support.programs import RELEASE, Programs, Server, Validation, running_programs
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES, Kind
from tests.support.eventually import becomes

SERVER = f"serviceaccount:{RELEASE}:kms-acme-server"
"""The user of the server in the audit log."""
PROFILE = "web"
"""The name of the authority, the policy, the profile and the credential in a namespace."""
SOON = 30.0
"""Time limit in seconds on a busy machine; an idle one takes less than a second."""
KILLS = int(os.environ.get("KMS_ACME_E2E_KILLS", "10"))
"""The number of kills in tests of crashes; 50 with `make soak`."""
ZONE = "test"
"""The zone of all names; each is allowed and has the address of our http-01 server."""


@dataclass(frozen=True)
class Site:
    """A cluster with our programs, and the http-01 server for all names."""

    cluster: Cluster
    answerer: http01.Answerer

    def apply(self, namespace: str, kind: Kind[Any], spec: Mapping[str, Any], *, name: str = PROFILE) -> None:
        """Create or change an object of a configuration kind."""
        self._apply(_manifest(namespace, kind, spec, name))

    def _apply(self, *manifests: Mapping[str, Any]) -> None:
        documents = "\n---\n".join(map(json.dumps, manifests))
        self.cluster.kubectl("apply", "--server-side", "--filename=-", stdin=documents)

    def wait(self, namespace: str, *things: str, condition: str = "Ready", limit: int = 120) -> None:
        """Wait until objects, such as "eabcredential/web", have a condition."""
        self.cluster.kubectl(
            "wait", f"--namespace={namespace}", f"--for=condition={condition}", f"--timeout={limit}s", *things
        )

    def profile(self, namespace: str, *, names: str = f"**.{ZONE}", **acme: Any) -> Enrollment:
        """Create a CA, a policy for names of the zone, and a profile with these options; wait until Ready."""
        references = {"issuerRef": {"name": PROFILE}, "policyRef": {"name": PROFILE}}
        self._apply(
            _manifest(namespace, AUTHORITIES, {"internal": {"subject": {"commonName": f"CA of {namespace}"}}}),
            _manifest(namespace, POLICIES, {"dnsNames": {"allowed": [names]}}),
            _manifest(namespace, PROFILES, {**references, "enrollment": {"acme": acme}}),
        )
        self.wait(namespace, f"certificateprofile/{PROFILE}")
        return enrollment_of(self.cluster, namespace, PROFILE)

    def open_profile(self, namespace: str) -> Enrollment:
        """Create a profile without external account binding."""
        return self.profile(namespace, externalAccountBinding="Disabled")

    def credential(self, namespace: str, *, name: str = PROFILE, **spec: Any) -> ExternalAccount:
        """Create an EABCredential for the profile of the namespace; wait until Ready."""
        self.apply(namespace, CREDENTIALS, {"profileRef": {"name": PROFILE}, **spec}, name=name)
        self.wait(namespace, f"eabcredential/{name}")
        return external_account_of(self.cluster, namespace, name)

    def objects(self, resource: str, namespace: str, **labels: str) -> list[dict[str, Any]]:
        """Read all objects of a resource ("acmeorders") in a namespace."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        printed = self.cluster.kubectl(
            "get",
            resource,
            f"--namespace={namespace}",
            "--output=json",
            *((f"--selector={selector}",) if labels else ()),
        )
        items: list[dict[str, Any]] = json.loads(printed)["items"]
        return items

    def object(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        """Read an object of a resource ("acmeorder").

        Raises:
            CommandFailed: there is none.
        """
        printed = self.cluster.kubectl("get", resource, name, f"--namespace={namespace}", "--output=json")
        found: dict[str, Any] = json.loads(printed)
        return found

    def order(self, namespace: str, url: str) -> dict[str, Any]:
        """The ACMEOrder behind an order's URL."""
        return self.object("acmeorder", namespace, url.rpartition("/")[2])

    def certificates(self, namespace: str) -> dict[str, str]:
        """The certificates of a namespace with the chains that are stored for them, by the names of their orders."""
        chains = {
            each["metadata"]["name"]: each["spec"]["certificates"]
            for each in self.objects("certificatechains", namespace)
        }
        found = {each["metadata"]["name"]: each.get("status", {}) for each in self.objects("acmeorders", namespace)}
        return {
            name: status["certificate"] + chains.get(status.get("chainRef", {}).get("name"), "")
            for name, status in found.items()
            if "certificate" in status
        }

    async def proven(self, client: Client, *names: str) -> Order:
        """Create an order and validate it until it is ready."""
        order = await client.new_order(names)
        for url in order.authorizations:
            challenge = http01_of(await client.authorization(url))
            self.answerer.add(challenge["token"], client.key.thumbprint)
            await client.respond(challenge)

        async def is_ready() -> bool:
            return (await client.order(order.url)).status == "ready"

        await becomes(is_ready)
        return await client.order(order.url)

    @asynccontextmanager
    async def client(
        self,
        enrollment: Enrollment,
        *,
        servers: Sequence[str] = (),
        external_account: ExternalAccount | None = None,
        register: bool = True,
    ) -> AsyncIterator[Client]:
        """A client with a new key and, with `register`, an account; it sends requests to `servers` in turn."""
        async with Exchange(enrollment.directory_url, tls=enrollment.tls, servers=servers) as exchange:
            client = Client(exchange, AccountKey.generate())
            if register:
                await client.register(external_account=external_account)
            yield client


@dataclass(frozen=True)
class Installation(Site):
    """A site whose programs and DNS the test controls."""

    programs: Programs
    zone: dns.Zone

    async def manage(self, action: str, *selection: str) -> str:
        """Run `kms-acme account` and return what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kms_acme", "account", action, f"--kubeconfig={self.cluster.kubeconfig}"),
            *(*selection, "--yes"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()
        return printed.decode()

    @contextmanager
    def replicas(self, count: int) -> Iterator[tuple[Server, ...]]:
        """Run further servers that are peers, for the duration of the block."""
        started = tuple(self.programs.add_server(peers=True) for _ in range(count))
        try:
            for each in started:
                each.wait_until_ready()
            yield started
        finally:
            for each in started:
                self.programs.remove_server(each)


async def refusal(request: Awaitable[object]) -> str:
    """The problem type in the answer to a request ("badCSR"); empty if the request succeeds."""
    try:
        await request
    except Refused as refused:
        return refused.answer.problem_type
    return ""


def _manifest(namespace: str, kind: Kind[Any], spec: Mapping[str, Any], name: str = PROFILE) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


@contextmanager
def installation(cluster: Cluster, folder: Path) -> Iterator[Installation]:
    """Run the programs, DNS and an http-01 server on a cluster with our CRDs and RBAC rules.

    Raises:
        ProgramFailed: one of the programs does not become ready.
    """
    zone, answerer = dns.Zone(ZONE), http01.Answerer()
    with dns.serving(zone) as nameserver, http01.serving(answerer) as http01_port:
        validation = Validation(dns_port=int(nameserver.rpartition(":")[2]), http01_port=http01_port)
        with running_programs(cluster, folder, validation=validation, log_level="debug") as programs:
            yield Installation(cluster=cluster, answerer=answerer, programs=programs, zone=zone)
