"""The setting of a user story: a namespace with a profile and a credential on the shared installation."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from e2e.cluster.ports import LOOPBACK
from e2e.cluster.processes import Deadline
from e2e.load.exchange import Exchange
from e2e.load.keys import certificate_id
from e2e.support import http01
from e2e.support.dns import Addresses, Answer
from e2e.support.enrollment import Enrollment, secret
from e2e.support.http01 import Answerer, Reply
from kms.resources.kinds import POLICIES
from tests.support.installation import PROFILE, ZONE, Installation

CLIENT_ADDRESS = "127.0.0.2"
"""The address where certbot and lego answer challenges."""
STRANGE_ADDRESS = "127.0.0.3"
"""The address of a server that is not the client."""
SITE_ADDRESS = "127.0.0.4"
"""The address of web servers that obtain their certificates themselves."""

LIMIT = 60.0
"""Time limit in seconds until a certificate is due for renewal."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The two strings in the Secret of an EABCredential."""

    kid: str
    secret: str


@dataclass(frozen=True)
class Story:
    """A team's namespace."""

    installation: Installation
    namespace: str
    enrollment: Enrollment

    @property
    def http01_port(self) -> int:
        """The port of http-01 validation."""
        return self.installation.programs.validation.http01_port

    @property
    def tls_alpn01_port(self) -> int:
        """The port of tls-alpn-01 validation and of HTTPS sites."""
        return self.installation.programs.validation.tls_alpn01_port

    @property
    def nameserver(self) -> str:
        """The address of the DNS server."""
        return f"{LOOPBACK}:{self.installation.programs.validation.dns_port}"

    def name(self, label: str, answer: Answer | None = None) -> str:
        """Create a DNS name with the address of the client's machine, or with another answer."""
        name = f"{label}.{self.namespace}.{ZONE}"
        self.installation.zone.set(name, answer or Addresses(CLIENT_ADDRESS))
        return name

    def credential(self, name: str = PROFILE, **spec: Any) -> Credential:
        """Create or update an EABCredential, and read its Secret."""
        self.installation.credential(self.namespace, name=name, **spec)
        return self.read_credential(name)

    def read_credential(self, name: str = PROFILE) -> Credential:
        """Read the Secret of an EABCredential."""
        data = secret(self.installation.cluster, self.namespace, f"{name}-eab")
        return Credential(data["kid"], data["secret"])

    def exchange(self) -> Exchange:
        """A raw exchange with the directory of the profile."""
        return Exchange(self.enrollment.directory_url, tls=self.enrollment.tls)

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace of the story."""
        return self.installation.cluster.kubectl(f"--namespace={self.namespace}", *args, stdin=stdin, check=check)

    def policy(self, **spec: Any) -> None:
        """Replace the spec of the policy."""
        self.installation.apply(self.namespace, POLICIES, spec)
        self.installation.wait(self.namespace, f"certificatepolicy/{PROFILE}", f"certificateprofile/{PROFILE}")

    def profile(self, **spec: Any) -> None:
        """Patch the spec of the profile with a merge patch."""
        self.kubectl("patch", "certificateprofile", PROFILE, "--type=merge", f"--patch={json.dumps({'spec': spec})}")
        generation = self.kubectl("get", "certificateprofile", PROFILE, "--output=jsonpath={.metadata.generation}")
        seen = f"--for=jsonpath={{.status.observedGeneration}}={generation}"
        self.kubectl("wait", seen, "--timeout=60s", f"certificateprofile/{PROFILE}")
        self.installation.wait(self.namespace, f"certificateprofile/{PROFILE}")

    def renew_early(self, certificate: x509.Certificate) -> None:
        """Set renewIssuedBefore to now, and wait until this certificate is due for renewal."""
        soon = datetime.now(UTC) + timedelta(seconds=1)  # the field has whole seconds
        self.profile(renewIssuedBefore=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
        deadline = Deadline(LIMIT)
        while (end := self.window(certificate)[1]) > datetime.now(UTC):
            if not deadline:
                raise TimeoutError(f"the window is open until {end}")
            time.sleep(0.2)

    def revoke(self, *names: str, reason: str) -> None:
        """Revoke the only certificate for these names with `kms-acme revoke`."""
        (order,) = self.orders(*names)
        kubeconfig = self.installation.cluster.kubeconfig
        subprocess.run(
            (
                *(sys.executable, "-m", "kms_acme", "revoke", f"--kubeconfig={kubeconfig}", "--yes"),
                *(f"--order={self.namespace}/{order['metadata']['name']}", f"--reason={reason}"),
            ),
            check=True,
            capture_output=True,
        )

    def window(self, certificate: x509.Certificate) -> tuple[datetime, datetime]:
        """The start and end of a certificate's renewal window (RFC 9773)."""
        url = self.enrollment.directory_url.replace("/directory", f"/renewal-info/{certificate_id(certificate)}")
        with urllib.request.urlopen(url, context=self.enrollment.tls, timeout=10) as answer:  # noqa: S310 - ours
            window = json.load(answer)["suggestedWindow"]
        return datetime.fromisoformat(window["start"]), datetime.fromisoformat(window["end"])

    def orders(self, *names: str) -> list[Mapping[str, Any]]:
        """The ACMEOrders for exactly these names, in any order."""
        return [
            order
            for order in self.installation.objects("acmeorders", self.namespace)
            if {each["value"] for each in order["spec"]["identifiers"]} == set(names)
        ]

    @contextmanager
    def stranger(self, reply: Reply) -> Iterator[Addresses]:
        """Run a server that answers every challenge with `reply`; yields its address for `name`."""
        with http01.serving(_Always(reply), host=STRANGE_ADDRESS, port=self.http01_port):
            yield Addresses(STRANGE_ADDRESS)


class _Always(Answerer):
    """Answers every request with the same reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    def reply(self, path: str) -> Reply:  # noqa: ARG002 - the same for every path
        return self._reply
