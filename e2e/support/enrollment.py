"""The parameters of an ACME client: directory URL, trusted CAs, and the two strings of an EAB credential.

They are read from the Secrets that the operator writes.
"""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass

from e2e.cluster import Cluster
from e2e.load.keys import ExternalAccount


@dataclass(frozen=True, slots=True)
class Enrollment:
    """The parameters for a profile. `authority` is the CA of the server in PEM, `chain` that of the profile."""

    directory_url: str
    authority: str
    chain: str

    @property
    def tls(self) -> ssl.SSLContext:
        """A context that only trusts the CA of the server."""
        return ssl.create_default_context(cadata=self.authority)


def enrollment_of(cluster: Cluster, namespace: str, profile: str) -> Enrollment:
    """Read the directory Secret of a Ready profile."""
    data = secret(cluster, namespace, f"{profile}-acme")
    return Enrollment(data["directory-url"], data["ca.crt"], data["chain.crt"])


def external_account_of(cluster: Cluster, namespace: str, credential: str) -> ExternalAccount:
    """Read the Secret of a Ready EABCredential."""
    data = secret(cluster, namespace, f"{credential}-eab")
    return ExternalAccount.parse(data["kid"], data["secret"])


def secret(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    """Read the data of a Secret as text.

    Raises:
        CommandFailed: there is none.
    """
    found = json.loads(cluster.kubectl("get", "secret", name, f"--namespace={namespace}", "--output=json"))
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
