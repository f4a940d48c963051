"""Where a user story plays: a namespace of its own, with a profile and a credential, on the shared installation."""

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
"""Where certbot and lego answer challenges by themselves."""
STRANGE_ADDRESS = "127.0.0.3"
"""Where somebody answers who is not the client."""
SITE_ADDRESS = "127.0.0.4"
"""Where web servers are that get their certificates by themselves."""

LIMIT = 60.0
"""Seconds that may pass until a certificate is due."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The two texts that a person copies from the Secret of an EABCredential."""

    kid: str
    secret: str


@dataclass(frozen=True)
class Story:
    """One team's corner of the cluster."""

    installation: Installation
    namespace: str
    enrollment: Enrollment

    @property
    def http01_port(self) -> int:
        """The port on which the server looks for answers to challenges."""
        return self.installation.programs.validation.http01_port

    @property
    def tls_alpn01_port(self) -> int:
        """The port on which the server looks for answers by TLS, which is also where web servers serve."""
        return self.installation.programs.validation.tls_alpn01_port

    @property
    def nameserver(self) -> str:
        """The DNS server that knows the names of the story."""
        return f"{LOOPBACK}:{self.installation.programs.validation.dns_port}"

    def name(self, label: str, answer: Answer | None = None) -> str:
        """A DNS name that leads to the machine with the client, or is answered as asked for."""
        name = f"{label}.{self.namespace}.{ZONE}"
        self.installation.zone.set(name, answer or Addresses(CLIENT_ADDRESS))
        return name

    def credential(self, name: str = PROFILE, **spec: Any) -> Credential:
        """The texts of an EABCredential, which is made if there is none of that name."""
        self.installation.credential(self.namespace, name=name, **spec)
        return self.read_credential(name)

    def read_credential(self, name: str = PROFILE) -> Credential:
        """The texts in the Secret of an EABCredential, as they are now."""
        data = secret(self.installation.cluster, self.namespace, f"{name}-eab")
        return Credential(data["kid"], data["secret"])

    def exchange(self) -> Exchange:
        """Raw requests to the directory of the profile."""
        return Exchange(self.enrollment.directory_url, tls=self.enrollment.tls)

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """kubectl in the namespace of the story."""
        return self.installation.cluster.kubectl(f"--namespace={self.namespace}", *args, stdin=stdin, check=check)

    def policy(self, **spec: Any) -> None:
        """Change the policy to this."""
        self.installation.apply(self.namespace, POLICIES, spec)
        self.installation.wait(self.namespace, f"certificatepolicy/{PROFILE}", f"certificateprofile/{PROFILE}")

    def profile(self, **spec: Any) -> None:
        """Change members of the profile's spec; those of objects in it one by one, as in a merge patch."""
        self.kubectl("patch", "certificateprofile", PROFILE, "--type=merge", f"--patch={json.dumps({'spec': spec})}")
        generation = self.kubectl("get", "certificateprofile", PROFILE, "--output=jsonpath={.metadata.generation}")
        seen = f"--for=jsonpath={{.status.observedGeneration}}={generation}"
        self.kubectl("wait", seen, "--timeout=60s", f"certificateprofile/{PROFILE}")
        self.installation.wait(self.namespace, f"certificateprofile/{PROFILE}")

    def renew_early(self, certificate: x509.Certificate) -> None:
        """Let the administrator want everything renewed that was issued until now; return when this one is due."""
        soon = datetime.now(UTC) + timedelta(seconds=1)  # the field has whole seconds
        self.profile(renewIssuedBefore=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
        deadline = Deadline(LIMIT)
        while (end := self.window(certificate)[1]) > datetime.now(UTC):
            if not deadline:
                raise TimeoutError(f"the window is open until {end}")
            time.sleep(0.2)

    def revoke(self, *names: str, reason: str) -> None:
        """Revoke the one certificate for these names, as an administrator does."""
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
        """From when until when the server wants a certificate to be renewed (RFC 9773)."""
        url = self.enrollment.directory_url.replace("/directory", f"/renewal-info/{certificate_id(certificate)}")
        with urllib.request.urlopen(url, context=self.enrollment.tls, timeout=10) as answer:  # noqa: S310 - ours
            window = json.load(answer)["suggestedWindow"]
        return datetime.fromisoformat(window["start"]), datetime.fromisoformat(window["end"])

    def orders(self, *names: str) -> list[Mapping[str, Any]]:
        """The ACMEOrders for exactly these names, in any order of names."""
        return [
            order
            for order in self.installation.objects("acmeorders", self.namespace)
            if {each["value"] for each in order["spec"]["identifiers"]} == set(names)
        ]

    @contextmanager
    def stranger(self, reply: Reply) -> Iterator[Addresses]:
        """Somebody who answers every challenge with `reply`; yields where, for `name`."""
        with http01.serving(_Always(reply), host=STRANGE_ADDRESS, port=self.http01_port):
            yield Addresses(STRANGE_ADDRESS)


class _Always(Answerer):
    """Answers everything alike."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    def reply(self, path: str) -> Reply:  # noqa: ARG002 - whatever is asked for
        return self._reply
