"""Names, labels and keys of the Secrets that the operator writes, for both programs.

In the release namespace: signing keys, verification copies of EAB keys, the nonce key, the serving certificate and CA.
In the users' namespaces: the EAB Secret and the directory Secret of a profile.
"""

from __future__ import annotations

import base64
import hashlib

from kms.resources.meta import GROUP

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "kms-acme"
COMPONENT = f"{GROUP}/component"
"""The purpose of a Secret: one of the values below."""
OWNER_UID = f"{GROUP}/owner-uid"
"""UID of the resource that owns a Secret in the release namespace: both are deleted together."""
OWNER = f"{GROUP}/owner"
"""Annotation beside OWNER_UID, for people: `CertificateAuthority pki/issuing`."""
DIGEST = f"{GROUP}/spec-digest"
"""Annotation with the digest of what the operator applied. The object itself may contain defaults."""
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
"""A copy of an EAB key where cert-manager reads it, and the issuer that uses it."""
ISSUER_CREDENTIALS = "issuer-credentials"
"""What an external CA is asked with: its Secret has the name of a signing key."""
NOTIFICATION_KEY, AUTHORITY_NOTIFICATION_KEY = "notification-key", "authority-notification-key"
"""Copies of the keys that notifications of a CertificateProfile, or of a CertificateAuthority, are signed with."""
TRUST = "trust"
"""Not a Secret: a ConfigMap or the like with the trust anchors of a CertificateAuthority."""

TLS_CERTIFICATE = "tls.crt"
TLS_PRIVATE_KEY = "tls.key"
CERTIFICATE_REQUEST = "ca.csr"
"""In a signing key's Secret: the CA is certified by request, and this is the request."""
CA_CERTIFICATE = "ca.crt"
CHAIN = "chain.crt"
KEY_STORE = "key-store"
"""In a signing key's Secret, in place of TLS_PRIVATE_KEY: in which key store the key is, in JSON."""
PIN = "pin"
"""Beside KEY_STORE: the PIN of a PKCS #11 token."""
KEY_ID = "kid"
EAB_SECRET = "secret"  # noqa: S105 - the name of a key in a Secret, fixed by the contract with users
DIRECTORY_URL = "directory-url"
NONCE_SECRET = "key"  # noqa: S105 - likewise
VAULT_JWT, VAULT_ROLE_ID, VAULT_SECRET_ID, VAULT_TOKEN = "jwt", "role-id", "secret-id", "token"
"""In a Secret with ISSUER_CREDENTIALS: what logs in to Vault or OpenBao (the second and third together)."""

_DIRECTORY_SUFFIX = "-acme"

SERVICE_NAME = "kms-acme"
"""The default name of the Service in front of the server. Secrets and Leases of an installation are named after it, so
that two installations in one namespace share nothing."""


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

    Its keys: `tls.key` (PKCS #8) and `tls.crt` (the CA's certificate, then those above it). If the key is in a key
    store, `key-store` and the credentials of the store are there in place of `tls.key`. A CA that is certified by
    request has `ca.csr` too, and at first no `tls.crt`.
    """
    return f"ca-{authority_uid}"


def verification_key_name(profile_namespace: str, profile: str, key_id: str) -> str:
    """The Secret in the release namespace with the HMAC key of one KID on one profile.

    The name follows from the KID that a client presents, so that the server finds it with one read by name. Its keys:
    `kid` and `secret`, as in the user's Secret; label OWNER_UID carries the UID of the EABCredential.
    """
    digest = hashlib.sha256(f"{profile_namespace}\0{profile}\0{key_id}".encode()).digest()
    return "eab-" + base64.b32encode(digest).decode().rstrip("=").lower()


def notification_key_name(owner_uid: str) -> str:
    """The Secret in the release namespace with the HMAC key (`secret`) for the notifications of the owner."""
    return f"notify-{owner_uid}"


def directory_secret_name(profile: str) -> str:
    """The Secret beside a profile with its directory URL and trust anchors."""
    return f"{profile}{_DIRECTORY_SUFFIX}"


def profile_of_directory(secret: str) -> str | None:
    """The profile whose directory Secret may have this name; None if that of none has."""
    profile = secret.removesuffix(_DIRECTORY_SUFFIX)
    return profile if profile != secret else None
