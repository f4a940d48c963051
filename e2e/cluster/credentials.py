"""The certificates and keys of a test cluster.

The API server authenticates users and components by client certificate (user = common name, group = organization),
and ServiceAccounts by token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from e2e.cluster.ports import LOOPBACK

ADMIN = "kubernetes-admin"
CONTROLLER_MANAGER = "system:kube-controller-manager"

_SERVER_NAMES = (LOOPBACK, "localhost", "kubernetes.default.svc")
_CLIENT_NAME = (
    "client.kms-acme.invalid"  # a placeholder: Go rejects a certificate with an empty critical subjectAltName
)
COMPONENTS = "kms-acme-test-cluster"
"""The group of the components."""
_GROUPS = {ADMIN: "system:masters", CONTROLLER_MANAGER: COMPONENTS}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The paths of the files."""

    folder: Path

    @property
    def ca_certificate(self) -> Path:
        """The certificate of the CA that signs all others."""
        return self.folder / "ca.crt"

    @property
    def service_account_key(self) -> Path:
        """The key that signs and verifies ServiceAccount tokens."""
        return self.folder / "service-account.key"

    def certificate(self, who: str) -> Path:
        """The certificate of a user, or of "server"."""
        return self.folder / f"{who.replace(':', '-')}.crt"

    def key(self, who: str) -> Path:
        """The private key of a user, or of "server"."""
        return self.certificate(who).with_suffix(".key")


def create(folder: Path, *, names: Iterable[str] = (), users: Mapping[str, str] | None = None) -> Credentials:
    """Create all credentials of a cluster in a folder that only its owner can read.

    `names` are further names and addresses of the API server, `users` further users, each with its group.
    """
    folder.mkdir(mode=0o700, parents=True)
    made = Credentials(folder)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made.ca_certificate)
    _write(made, "server", authority.issue_cert(*_SERVER_NAMES, *names))
    for user, group in {**_GROUPS, **(users or {})}.items():
        _write(made, user, authority.issue_cert(_CLIENT_NAME, common_name=user, organization_name=group))
    key = ec.generate_private_key(ec.SECP256R1())
    made.service_account_key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    return made


def _write(made: Credentials, who: str, issued: trustme.LeafCert) -> None:
    issued.private_key_pem.write_to_path(made.key(who))
    issued.cert_chain_pems[0].write_to_path(made.certificate(who))
