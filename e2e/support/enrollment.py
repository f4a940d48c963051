"""What people give to an ACME client: the URL of a directory, what to trust, and the two texts of an EAB credential.

Read as people read it, from the Secrets that the operator writes beside their manifests.
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
    """All that a client of one profile needs. `authority` is the PEM that `tls` trusts, `chain` that of the profile."""

    directory_url: str
    authority: str
    chain: str

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts the server's own certificate, and nothing else."""
        return ssl.create_default_context(cadata=self.authority)


def enrollment_of(cluster: Cluster, namespace: str, profile: str) -> Enrollment:
    """What the directory Secret of a profile says, which must be Ready."""
    data = secret(cluster, namespace, f"{profile}-acme")
    return Enrollment(data["directory-url"], data["ca.crt"], data["chain.crt"])


def external_account_of(cluster: Cluster, namespace: str, credential: str) -> ExternalAccount:
    """What the Secret of an EABCredential says, which must be Ready."""
    data = secret(cluster, namespace, f"{credential}-eab")
    return ExternalAccount.parse(data["kid"], data["secret"])


def secret(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    """The data of a Secret, as text.

    Raises:
        CommandFailed: there is none.
    """
    found = json.loads(cluster.kubectl("get", "secret", name, f"--namespace={namespace}", "--output=json"))
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
