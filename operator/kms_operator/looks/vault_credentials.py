"""Credentials for Vault and OpenBao: from where they come, and what to do where they are missing.

For Kubernetes auth they are a token of a ServiceAccount in the CA's namespace, which the user lets the operator request
(TokenRequest API). Its audiences name the CertificateAuthority, so no other one can use the identity; cert-manager does
the same. All others come from a Secret of the CA's namespace.
"""

from __future__ import annotations

import re
from typing import Final

from kms.contract import service_account_name
from kms.issuers.vault.credentials import InvalidCredentials, credentials_in
from kms.pki.ca import InvalidAuthority
from kms.resources.authorities import CertificateAuthority, KubernetesAuth, SecretKeyRef, VaultAuth, VaultServer
from kms.resources.core import Secret
from kms.resources.secret_names import VAULT_ROLE_ID, VAULT_SECRET_ID, VAULT_TOKEN
from kms_operator.plan import QUOTED, SECRET_NOT_FOUND
from kms_operator.settings import OperatorSettings

TOKEN_FORBIDDEN: Final = "TokenForbidden"  # noqa: S105 - a reason

_USER: Final = re.compile(r'"system:serviceaccount:([a-z0-9.-]+):([a-z0-9.-]+)"')


def copied_credentials(authority: CertificateAuthority, server: VaultServer, source: Secret | None) -> dict[str, bytes]:
    """The data for the server from the user's Secret. Raises InvalidAuthority (SecretNotFound)."""
    reference, auth, namespace = secret_ref(server.auth), server.auth, authority.metadata.namespace
    if reference is None:
        raise ValueError("the credentials come from no Secret")
    command = f"kubectl create secret generic {reference.name} -n {namespace} --from-file={reference.key}=FILE"
    if source is None:
        raise InvalidAuthority(SECRET_NOT_FOUND, f"Secret {reference.name} does not exist; create it with: {command}")
    value = source.data.get(reference.key)
    if value is None:
        raise InvalidAuthority(
            SECRET_NOT_FOUND, f"Secret {reference.name} has no key {reference.key}; create it with: {command}"
        )
    if auth.app_role is not None:
        data = {VAULT_ROLE_ID: auth.app_role.role_id.encode(), VAULT_SECRET_ID: value}
    else:
        data = {VAULT_TOKEN: value}
    try:
        credentials_in(data, auth)
    except InvalidCredentials:
        problem = (
            f"Secret {reference.name}, key {reference.key}: the value is empty, or has characters that no token has"
        )
        raise InvalidAuthority(SECRET_NOT_FOUND, problem) from None
    return data


def token_audiences(authority: CertificateAuthority, server: VaultServer, auth: KubernetesAuth) -> tuple[str, ...]:
    """The audiences of the ServiceAccount's token: the CertificateAuthority, the server, and those of the user."""
    own = f"kms-acme://{authority.metadata.namespace}/{authority.metadata.name}"
    return tuple(dict.fromkeys((own, server.server, *auth.audiences)))


def token_forbidden(
    authority: CertificateAuthority, auth: KubernetesAuth, answer: str, settings: OperatorSettings
) -> InvalidAuthority:
    """The refusal where the operator may not request a token. `answer` is that of the API server."""
    account, namespace = auth.service_account_ref.name, authority.metadata.namespace
    user = _USER.search(answer)
    operator = ":".join(user.groups()) if user else f"{settings.namespace}:{service_account_name('operator')}"
    name = f"{account}-token"
    return InvalidAuthority(
        TOKEN_FORBIDDEN,
        f"the operator may not request tokens of ServiceAccount {account}; allow it with: kubectl create role {name}"
        f" -n {namespace} --verb=create --resource=serviceaccounts/token --resource-name={account} && kubectl create"
        f" rolebinding {name} -n {namespace} --role={name} --serviceaccount={operator}",
    )


def token_not_found(authority: CertificateAuthority, auth: KubernetesAuth) -> InvalidAuthority:
    """The refusal where the ServiceAccount does not exist."""
    account, namespace = auth.service_account_ref.name, authority.metadata.namespace
    return InvalidAuthority(
        TOKEN_FORBIDDEN,
        f"ServiceAccount {account} does not exist; create it with: kubectl create serviceaccount {account}"
        f" -n {namespace}",
    )


def token_refused(auth: KubernetesAuth, answer: str) -> InvalidAuthority:
    """The refusal for another answer of the API server, such as that a name is not valid."""
    account = auth.service_account_ref.name
    return InvalidAuthority(TOKEN_FORBIDDEN, f"no token of ServiceAccount {account}: {answer[:QUOTED]}")


def secret_ref(auth: VaultAuth) -> SecretKeyRef | None:
    """The user's Secret with the credentials, and its key; None: they do not come from one."""
    return auth.app_role.secret_ref if auth.app_role is not None else auth.token_secret_ref
