"""The Secrets that the operator writes: their names, types, labels and keys. One place, so that both programs agree.

In the release namespace: signing keys, verification copies of EAB keys, the nonce key, the serving certificate and CA.
Beside the users' manifests: the EAB Secret and the directory Secret of a profile.
"""

from __future__ import annotations

import base64
import hashlib

from kms.resources.meta import GROUP

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "kms-acme"
COMPONENT = f"{GROUP}/component"
"""What a Secret of ours is for; one of the values below."""
OWNER_UID = f"{GROUP}/owner-uid"
"""UID of the resource that a Secret in the release namespace belongs to: it goes when the resource goes."""
OWNER = f"{GROUP}/owner"
"""Annotation beside OWNER_UID, for people: `CertificateAuthority pki/issuing`."""
CREDENTIAL_UID = f"{GROUP}/credential-uid"
"""On an ACMEAccount: UID of the EABCredential that opened it."""

SIGNING_KEY = "signing-key"
VERIFICATION_KEY = "eab-verification"
NONCE_KEY = "nonce-key"
SERVING_CERTIFICATE = "serving-certificate"
SERVING_AUTHORITY = "serving-authority"
USER_CREDENTIAL = "eab"
DIRECTORY = "directory"
ISSUER_KEY = "issuer-eab"
"""A copy of an EAB key where cert-manager reads it; and what we have made around it, its issuer above all."""
TRUST = "trust"
"""No Secret: a ConfigMap or the like with what to trust of a CertificateAuthority."""

TLS_CERTIFICATE = "tls.crt"
TLS_PRIVATE_KEY = "tls.key"
CA_CERTIFICATE = "ca.crt"
CHAIN = "chain.crt"
KEY_ID = "kid"
EAB_SECRET = "secret"  # noqa: S105 - the name of a key in a Secret, fixed by the contract with users
DIRECTORY_URL = "directory-url"
NONCE_SECRET = "key"  # noqa: S105 - likewise

SERVICE_NAME = "kms-acme"
"""The Service in front of the server, where an installation does not call it otherwise. What an installation has only
once is named after it, so that two of them in one namespace do not share a key."""


def nonce_secret_name(service: str) -> str:
    """The Secret with the key of the nonces, which all replicas of a server share."""
    return f"{service}-nonce"


def serving_secret_name(service: str) -> str:
    """The Secret with the server's own certificate, unless an option names another one."""
    return f"{service}-serving"


def serving_authority_name(service: str) -> str:
    """The Secret with the CA of the server's own certificate."""
    return f"{service}-serving-ca"


def signing_key_name(authority_uid: str) -> str:
    """The Secret in the release namespace that holds the key of the CertificateAuthority with this UID.

    Its keys: `tls.key` (PKCS #8) and `tls.crt` (the CA's certificate, then what is above it).
    """
    return f"ca-{authority_uid}"


def verification_key_name(profile_namespace: str, profile: str, key_id: str) -> str:
    """The Secret in the release namespace with the HMAC key of one KID on one profile.

    The name follows from what a client presents, so that the server finds it with a single read by name. Its keys:
    `kid` and `secret`, as in the user's Secret; label OWNER_UID carries the UID of the EABCredential.
    """
    digest = hashlib.sha256(f"{profile_namespace}\0{profile}\0{key_id}".encode()).digest()
    return "eab-" + base64.b32encode(digest).decode().rstrip("=").lower()


def directory_secret_name(profile: str) -> str:
    """The Secret beside a profile that tells its directory URL and what to trust."""
    return f"{profile}-acme"
