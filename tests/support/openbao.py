"""A real OpenBao in memory, and what an administrator sets up there: a CA, a role, policies and ways to log in."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import Deadline, Process, last_lines
from e2e.support.tools import Tool, required
from kms.resources.authorities import SecretKeyRef, VaultAuth, VaultAuthority, VaultServer

BAO: Final = Tool("bao", hint="run make setup")
ROLE: Final[Mapping[str, Any]] = {
    "allowed_domains": ["test"],
    "allow_subdomains": True,
    "allow_bare_domains": True,
    "allow_ip_sans": True,
    "require_cn": False,
    "use_csr_sans": True,
    "use_csr_common_name": True,
    "key_type": "any",
    "key_usage": ["DigitalSignature"],
    "client_flag": False,
    "no_store": False,
    "max_ttl": "2160h",
}
"""The role that docs/external-cas.md describes."""
_START_LIMIT = 60.0
_ATTEMPTS = 3


class Refused(Exception):
    """OpenBao has answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


@dataclass(frozen=True)
class OpenBao:
    """A running server. Requests are those of its root token, in `namespace` if it is set."""

    url: str
    ca_bundle: str
    root_token: str
    unseal_key: str
    namespace: str | None = None

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> dict[str, Any]:
        """Call its API (`path` without /v1). Raises Refused."""
        headers = {"X-Vault-Token": token or self.root_token}
        if self.namespace is not None:
            headers["X-Vault-Namespace"] = self.namespace
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}/v1/{path}", data=data, headers=headers, method=method)  # noqa: S310 - https
        tls = ssl.create_default_context(cadata=self.ca_bundle)
        try:
            with urllib.request.urlopen(asked, timeout=30, context=tls) as answer:  # noqa: S310 - https
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from None
        found: dict[str, Any] = json.loads(content) if content else {}
        return found

    def write(self, path: str, **body: Any) -> dict[str, Any]:
        """POST; the data of the answer. Raises Refused."""
        return self.request("POST", path, body).get("data") or {}

    def read(self, path: str, *, token: str | None = None) -> dict[str, Any]:
        """GET; the data of the answer. Raises Refused."""
        found: dict[str, Any] = self.request("GET", path, token=token)["data"]
        return found

    def within(self, namespace: str) -> OpenBao:
        """The server as a new namespace sees it."""
        self.request("POST", f"sys/namespaces/{namespace}", {})
        return OpenBao(self.url, self.ca_bundle, self.root_token, self.unseal_key, namespace)

    def seal(self) -> None:
        """Seal it: it answers 503 until `unseal`."""
        self.request("POST", "sys/seal", {})

    def unseal(self) -> None:
        """Unseal it, and wait until it answers again."""
        self.request("POST", "sys/unseal", {"key": self.unseal_key})
        deadline = Deadline(_START_LIMIT)
        while not _is_ready(self.url, self.ca_bundle):
            assert deadline, "OpenBao does not answer after it was unsealed"
            time.sleep(0.02)

    def mount(self, kind: str) -> str:
        """Mount a secrets engine at a new path."""
        path = f"{kind}-{secrets.token_hex(4)}"
        self.write(f"sys/mounts/{path}", type=kind, config={"max_lease_ttl": "87600h"})
        return path

    def move(self, mount: str, to: str) -> None:
        """Move a secrets engine, and wait until that is done."""
        migration = self.request("POST", "sys/remount", {"from": mount, "to": to})["data"]["migration_id"]
        deadline = Deadline(_START_LIMIT)
        while self.read(f"sys/remount/status/{migration}")["migration_info"]["status"] != "success":
            assert deadline, "the engine is not moved"
            time.sleep(0.02)

    def enable_auth(self, kind: str) -> str:
        """Enable an auth method at a new path."""
        path = f"{kind}-{secrets.token_hex(4)}"
        self.write(f"sys/auth/{path}", type=kind)
        return path

    def root_ca(self, **role: Any) -> str:
        """A PKI engine whose root signs by role `web`; its mount."""
        mount = self.mount("pki")
        name = f"Root {mount}"
        self.write(f"{mount}/root/generate/internal", common_name=name, ttl="43800h", key_type="ec", key_bits=256)
        self.role(mount, **role)
        return mount

    def issuing_ca(self, root: str, **role: Any) -> str:
        """A PKI engine whose CA `root` has certified; its mount."""
        mount = self.mount("pki")
        request = self.write(
            f"{mount}/intermediate/generate/internal", common_name=f"Issuing {mount}", key_type="ec", key_bits=256
        )
        signed = self.write(f"{root}/root/sign-intermediate", csr=request["csr"], ttl="26280h", format="pem_bundle")
        self.write(f"{mount}/intermediate/set-signed", certificate=signed["certificate"])
        self.role(mount, **role)
        return mount

    def role(self, mount: str, name: str = "web", **changes: Any) -> None:
        """Write a role of a PKI engine."""
        self.write(f"{mount}/roles/{name}", **{**ROLE, **changes})

    def policy(self, rules: Mapping[str, Sequence[str]]) -> str:
        """A policy with these capabilities by path; its name."""
        name = f"policy-{secrets.token_hex(4)}"
        text = "\n".join(f'path "{path}" {{ capabilities = {json.dumps(list(each))} }}' for path, each in rules.items())
        self.write(f"sys/policies/acl/{name}", policy=text)
        return name

    def pki_policy(self, mount: str) -> str:
        """The policy that docs/external-cas.md describes; its name."""
        update = ("update",)
        return self.policy({f"{mount}/sign/web": update, f"{mount}/revoke": update, f"{mount}/roles/web": ("read",)})

    def app_role(self, policy: str, **options: Any) -> AppRole:
        """An AppRole with a new secret ID."""
        mount = self.enable_auth("approle")
        self.write(f"auth/{mount}/role/kms", token_policies=[policy], **options)
        role_id = self.read(f"auth/{mount}/role/kms/role-id")["role_id"]
        secret_id = self.write(f"auth/{mount}/role/kms/secret-id")["secret_id"]
        return AppRole(mount, role_id, secret_id)

    def token(self, policy: str, ttl: str = "1h") -> str:
        """A token of this policy."""
        answer = self.request("POST", "auth/token/create", {"policies": [policy], "ttl": ttl, "no_parent": True})
        token: str = answer["auth"]["client_token"]
        return token

    def jwt_auth(self, policy: str, **role: Any) -> JWTAuth:
        """The auth method for tokens of ServiceAccounts that this test signs itself; its role is `kms`."""
        mount, key = self.enable_auth("jwt"), Ed25519PrivateKey.generate()
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.write(f"auth/{mount}/config", jwt_validation_pubkeys=[pem])
        self.write(
            f"auth/{mount}/role/kms",
            **{"role_type": "jwt", "user_claim": "sub", "token_policies": [policy], "token_ttl": "1h", **role},
        )
        return JWTAuth(mount, key)

    def tokens_of(self, policy: str) -> int:
        """The number of tokens with this policy."""
        found = self.request("LIST", "auth/token/accessors")["data"]["keys"]
        read = (self.write("auth/token/lookup-accessor", accessor=each) for each in found)
        return sum(policy in each["policies"] for each in read)

    def certificates_of(self, mount: str) -> int:
        """The number of certificates that the CA has stored; those of roots include their own."""
        try:
            return len(self.request("LIST", f"{mount}/certs")["data"]["keys"])
        except Refused as none:
            if none.status != HTTPStatus.NOT_FOUND:
                raise
            return 0

    def server(self, auth: VaultAuth) -> VaultServer:
        """How a CertificateAuthority names the server."""
        return VaultServer(server=self.url, namespace=self.namespace, ca_bundle=self.ca_bundle, auth=auth)

    def authority(self, path: str, auth: VaultAuth) -> VaultAuthority:
        """How a CertificateAuthority names a CA of the server."""
        return VaultAuthority(server=self.url, namespace=self.namespace, ca_bundle=self.ca_bundle, auth=auth, path=path)


@dataclass(frozen=True)
class AppRole:
    """Where and how to log in with a secret ID."""

    mount: str
    role_id: str
    secret_id: str


@dataclass(frozen=True)
class JWTAuth:
    """Where to log in with a JWT, and the key that signs them."""

    mount: str
    key: Ed25519PrivateKey

    def token(self, audience: str, *, subject: str = "system:serviceaccount:pki:issuer", life: int = 3600) -> str:
        """A token of a ServiceAccount; it ends after `life` seconds."""
        now = int(time.time())
        claims = {"iss": "kubernetes", "sub": subject, "aud": [audience], "iat": now, "nbf": now - 5, "exp": now + life}
        signed = f"{_base64url({'alg': 'EdDSA', 'typ': 'JWT'})}.{_base64url(claims)}"
        return f"{signed}.{_encoded(self.key.sign(signed.encode()))}"


SECRET_ID: Final = SecretKeyRef(name="openbao-approle", key="secret-id")
TOKEN_AUTH: Final = VaultAuth(token_secret_ref=SecretKeyRef(name="openbao", key="token"))


def _base64url(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def running(folder: Path) -> Iterator[OpenBao]:
    """An OpenBao of our own, with TLS, on the loopback address; it ends with the block, and with this process."""
    program = required(BAO)
    for attempt in range(_ATTEMPTS):
        port, log = free_port(), folder / f"openbao-{attempt}.log"
        token = f"root-{secrets.token_hex(8)}"
        process = Process.start(
            [
                program,
                *("server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-no-store-token"),
                *(f"-dev-root-token-id={token}", f"-dev-listen-address={LOOPBACK}:{port}"),
            ],
            log=log,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)},
        )
        try:
            url = f"https://{LOOPBACK}:{port}"
            if _started(process, url, folder / "vault-ca.pem"):
                ca_bundle = (folder / "vault-ca.pem").read_text(encoding="ascii")
                yield OpenBao(url, ca_bundle, token, _unseal_key(log))
                return
        finally:
            process.kill()  # it has nothing to save
    pytest.fail(f"OpenBao has not started: {last_lines(log)}")


def _started(process: Process, url: str, bundle: Path) -> bool:
    deadline = Deadline(_START_LIMIT)
    while deadline and process.running():
        if bundle.exists() and _is_ready(url, bundle.read_text(encoding="ascii")):
            return True
        time.sleep(0.02)
    return False


def _is_ready(url: str, ca_bundle: str) -> bool:
    try:
        tls = ssl.create_default_context(cadata=ca_bundle)
        with urllib.request.urlopen(f"{url}/v1/sys/health", timeout=5, context=tls) as answer:  # noqa: S310 - https
            return bool(answer.status == 200)
    except OSError:
        return False


def _unseal_key(log: Path) -> str:
    deadline = Deadline(_START_LIMIT)
    while deadline:
        if found := re.search(r"Unseal Key: (\S+)", log.read_text(encoding="utf-8", errors="replace")):
            return found[1]
        time.sleep(0.02)
    pytest.fail(f"no unseal key: {last_lines(log)}")


@pytest.fixture(scope="module")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One OpenBao for a module; each test makes mounts of its own there."""
    with running(tmp_path_factory.mktemp("openbao")) as server:
        yield server
