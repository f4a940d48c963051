"""Vault and OpenBao: calls to their HTTP API, logins, and the CA of their PKI secrets engine."""

from kms.issuers.vault.client import Reply as Reply
from kms.issuers.vault.client import VaultClient as VaultClient
from kms.issuers.vault.credentials import Credentials as Credentials
from kms.issuers.vault.credentials import InvalidCredentials as InvalidCredentials
from kms.issuers.vault.credentials import credentials_in as credentials_in
from kms.issuers.vault.errors import BadRequest as BadRequest
from kms.issuers.vault.errors import LoginFailed as LoginFailed
from kms.issuers.vault.errors import NotServed as NotServed
from kms.issuers.vault.errors import PermissionDenied as PermissionDenied
from kms.issuers.vault.errors import Sealed as Sealed
from kms.issuers.vault.errors import ServerFailed as ServerFailed
from kms.issuers.vault.errors import Unreachable as Unreachable
from kms.issuers.vault.errors import VaultError as VaultError
from kms.issuers.vault.login import Login as Login
from kms.issuers.vault.login import log_in as log_in
from kms.issuers.vault.login import log_out as log_out
from kms.issuers.vault.session import VaultSession as VaultSession
