"""The CA of a PKI secrets engine. It answers in one call, and asked twice it signs twice.

So `begin` asks, and `look` returns the answer. What a process has asked and not stored is lost with it; the order then
begins another attempt, and the CA has a certificate that nobody else has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.clock import Clock, system_clock
from kms.issuers.base import IssuerNotReady
from kms.issuers.protocol import Answer, Failed, Pending, Refused, Returned, Submission, Unavailable
from kms.issuers.vault.client import Reply
from kms.issuers.vault.credentials import Credentials, InvalidCredentials, credentials_in
from kms.issuers.vault.errors import (
    BadRequest,
    LoginFailed,
    NotServed,
    PermissionDenied,
    Unreachable,
    VaultError,
)
from kms.issuers.vault.path import SigningPath, signing_path
from kms.issuers.vault.session import VaultSession
from kms.pki.csr import parse_request
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.secret_names import signing_key_name

logger = logging.getLogger(__name__)

_CA_ENDS: Final = "beyond the expiration of the CA"
_UNKNOWN_ROLE: Final = "unknown role"
_BOTH: Final = "field was provided but the role is set with"
_CLOCKS: Final = timedelta(minutes=1)
"""How far clocks of replicas may differ."""


class _Signed(msgspec.Struct, frozen=True):
    certificate: str
    ca_chain: tuple[str, ...] | None = None


class VaultIssuer:
    """Signs by a role of Vault or OpenBao. `name` is that of the CertificateAuthority, for the log."""

    def __init__(self, name: str, path: SigningPath, session: VaultSession, *, clock: Clock = system_clock) -> None:
        self._name = name
        self._mount = path.mount
        at = path.mount if path.issuer is None else f"{path.mount}/issuer/{path.issuer}"
        self._sign_path = f"{at}/sign/{path.role}"
        self._session = session
        self._clock = clock
        self._answers: dict[str, Answer] = {}

    async def begin(self, submission: Submission) -> None:
        """Ask the CA, unless it has answered this submission."""
        if submission.name not in self._answers:
            self._answers[submission.name] = await self._sign(submission)

    async def look(self, submission: Submission) -> Answer:
        """The answer. The CA is asked again while it has signed nothing for want of configuration."""
        answer = self._answers.get(submission.name)
        if isinstance(answer, Pending):
            answer = self._answers[submission.name] = await self._sign(submission)
        return answer or Unavailable("no answer to this attempt is known", is_ambiguous=True)

    async def forget(self, submission: Submission) -> None:
        """Drop the answer."""
        self._answers.pop(submission.name, None)

    async def revoke(self, certificate: bytes) -> bool:
        """Revoke a certificate in DER, by its serial number or, where the role stores none, by itself. Returns True.

        By serial number first: all versions know that, Vault before 1.12 nothing else; serial numbers are unique in an
        engine, and it needs no issuer that is still there. Again is no error in either way.

        Raises IssuerNotReady if the CA cannot be asked, or has not confirmed it.
        """
        parsed = x509.load_der_x509_certificate(certificate)
        path, serial = f"{self._mount}/revoke", _with_colons(parsed.serial_number)
        try:
            try:
                reply = await self._session.call("POST", path, {"serial_number": serial})
            except BadRequest:
                pem = parsed.public_bytes(Encoding.PEM).decode()
                reply = await self._session.call("POST", path, {"certificate": pem})
        except VaultError as error:
            raise IssuerNotReady(f"CertificateAuthority {self._name} has not revoked {serial}: {error}") from error
        self._log_warnings(reply, serial=serial)
        return True

    async def close(self) -> None:
        """Revoke the token and close all connections."""
        await self._session.close()

    async def _sign(self, submission: Submission) -> Answer:
        try:
            reply = await self._session.call("POST", self._sign_path, _parameters(submission, self._clock()))
        except VaultError as error:
            logger.info(
                "the CA has signed nothing",
                extra={"authority": self._name, "order": submission.order[1], "error": str(error)},
            )
            return _obstacle(error)
        self._log_warnings(reply, order=submission.order[1])
        try:
            signed = msgspec.json.decode(reply.data, type=_Signed)
        except msgspec.MsgspecError:
            return Failed("the answer has no certificate")
        blocks = (signed.certificate, *(signed.ca_chain or ()))
        return Returned("".join(f"{each.strip()}\n" for each in blocks).encode())

    def _log_warnings(self, reply: Reply, **extra: str) -> None:
        for warning in reply.warnings or ():
            if _BOTH in warning:  # the same names are in the request and in the parameters, as roles differ
                continue
            logger.warning("the CA warns", extra={"authority": self._name, **extra, "warning": warning})


def vault_issuer(
    authority: CertificateAuthority, *, find_secret: Callable[[str, str], Secret | None], namespace: str
) -> VaultIssuer:
    """The issuer of this CA. The operator keeps its credentials in a Secret of the release namespace, `namespace`.

    Sends nothing. Raises IssuerNotReady for a CA that is not one of Vault.
    """
    name = f"{authority.metadata.namespace}/{authority.metadata.name}"
    vault = authority.spec.external.vault if authority.spec.external is not None else None
    if vault is None:
        raise IssuerNotReady(f"CertificateAuthority {name} is not one of Vault")
    try:
        path = signing_path(vault.path)
    except ValueError as error:
        raise IssuerNotReady(f"CertificateAuthority {name}: {error}") from None

    def credentials() -> Credentials:
        secret = find_secret(namespace, signing_key_name(authority.metadata.uid))
        if secret is None:
            raise InvalidCredentials("the operator has not written them yet")
        return credentials_in(secret.data, vault.auth)

    return VaultIssuer(name, path, VaultSession(vault, credentials))


def _parameters(submission: Submission, now: datetime) -> dict[str, Any]:
    """What is asked for. The role decides which parts of it, and of the CSR, count."""
    request = parse_request(submission.request)
    csr = submission.pem.decode()
    parameters: dict[str, Any] = {
        "csr": csr,
        "common_name": request.common_name or "",
        "alt_names": ",".join(sorted(each.value for each in request.names if each.type == "dns")),
        "ip_sans": ",".join(sorted(each.value for each in request.names if each.type == "ip")),
        "exclude_cn_from_sans": True,
        "format": "pem",
        "remove_roots_from_chain": True,
    }
    exact = submission.not_after
    if exact is not None and now + submission.duration + _CLOCKS >= exact:
        return parameters | {"not_after": f"{exact:%Y-%m-%dT%H:%M:%SZ}"}
    return parameters | {"ttl": f"{int(submission.duration.total_seconds())}s"}


def _obstacle(error: VaultError) -> Answer:
    """What it means that the CA has not signed. Configuration passes by itself once somebody has corrected it."""
    message = f"{error}: {error.words}" if error.words else str(error)
    match error:
        case BadRequest() if _CA_ENDS in error.words:
            return Failed(message, is_final=True)
        case BadRequest() if not error.words.startswith(_UNKNOWN_ROLE):
            return Refused(message)
        case BadRequest() | NotServed():
            return Pending("IssuerNotReady", message)
        case PermissionDenied() | LoginFailed():
            return Pending("AuthenticationFailed", message)
        case Unreachable():
            return Unavailable(message, is_ambiguous=error.is_ambiguous)
        case _:  # configuration that the server notices only now, or an error of its own
            return Failed(message)


def _with_colons(serial: int) -> str:
    """A serial number as Vault writes it: octets in hexadecimal, with colons."""
    return serial.to_bytes((serial.bit_length() + 7) // 8 or 1).hex(":")
