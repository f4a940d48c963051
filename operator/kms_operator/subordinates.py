"""Has external CAs certify internal ones: by a CertificateRequest of cert-manager, or by a call of Vault or OpenBao.

What one has answered is kept for a while, so that a reconciliation that is repeated, or whose check refuses the answer,
does not ask again and again: each answer may be a CA certificate that is valid for years.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NoReturn

from kms.clock import Clock, system_clock
from kms.cluster.client import Cluster
from kms.cluster.errors import AlreadyExists, ClusterError, Conflict, Forbidden, Misconfigured, NotFound, Unavailable
from kms.contract import service_account_name
from kms.issuers.cert_manager import answer_of
from kms.issuers.protocol import Answer, Denied, Failed, Pending, Refused, Returned, request_name
from kms.issuers.request_objects import answer_to_error
from kms.issuers.vault.credentials import credentials_in
from kms.issuers.vault.errors import BadRequest, LoginFailed, PermissionDenied, Sealed, Unreachable, VaultError
from kms.issuers.vault.intermediate import NoCertificate, intermediate_path, sign_intermediate
from kms.issuers.vault.path import InvalidPath, signing_path
from kms.pki.ca import InvalidAuthority
from kms.resources.authorities import CertificateAuthority, IssuerRef, VaultAuthority, VaultServer
from kms.resources.certmanager import CertificateRequest, CertificateRequestSpec
from kms.resources.durations import format_duration
from kms.resources.kinds import AUTHORITIES, CERTIFICATE_REQUESTS
from kms.resources.meta import ObjectMeta, OwnerReference
from kms.resources.secret_names import MANAGED_BY, MANAGER
from kms_operator.observation import foreign
from kms_operator.questions import CertifyAuthority
from kms_operator.settings import OperatorSettings

Credentials = Callable[[CertificateAuthority, VaultServer], Awaitable[Mapping[str, bytes]]]

SHORTEST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(hours=1)
USAGES: Final = ("cert sign", "crl sign")
_FORGOTTEN: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked last for a CA, how often, and until when the answer counts; of a failure, reason and message."""

    question: CertifyAuthority
    answer: bytes | tuple[str, str] = field(repr=False)
    times: int
    until: datetime


class SubordinateCertificates:
    """Asks for each internal CA at most once in a while: after `shortest`, each time twice as late, up to `longest`.

    Another request, another version of the external CA, or the certificate that was asked for, ends the pause.
    `credentials` returns what logs in to Vault for an external CA.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        credentials: Credentials,
        *,
        clock: Clock = system_clock,
        shortest: timedelta = SHORTEST,
        longest: timedelta = LONGEST,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._credentials = credentials
        self._clock = clock
        self._shortest = shortest
        self._longest = longest
        self._asked: dict[str, _Asked] = {}

    async def certify(self, question: CertifyAuthority) -> bytes:
        """The answer (PEM) to the request of a CA, which nobody has checked.

        Raises InvalidAuthority with a reason for its condition, and ClusterError.
        """
        uid, now = question.authority.metadata.uid, self._clock()
        known = self._asked.get(uid)
        times = known.times if known is not None and known.question == question else 0
        if known is not None and times and now < known.until:
            return _return(known.answer)
        try:
            answer: bytes | tuple[str, str] = await self._ask(question)
        except _StillPending as pending:
            raise InvalidAuthority(pending.reason, str(pending)) from None
        except InvalidAuthority as error:
            answer = error.reason, str(error)
        pause = min(self._longest, self._shortest * (1 << min(times, 16)))
        self._asked = {each: kept for each, kept in self._asked.items() if now < kept.until + _FORGOTTEN}
        self._asked[uid] = _Asked(question, answer, times + 1, now + pause)
        return _return(answer)

    async def _ask(self, question: CertifyAuthority) -> bytes:
        external = question.issuer.spec.external
        if external is not None and external.cert_manager is not None:
            return await self._request(question, external.cert_manager.issuer_ref)
        if external is not None and external.vault is not None:
            return await self._call(question, external.vault)
        raise InvalidAuthority("IssuerUnsuitable", f"{_name(question.issuer)} signs no CAs")

    async def _call(self, question: CertifyAuthority, vault: VaultAuthority) -> bytes:
        data = await self._credentials(question.issuer, vault)
        spec = question.authority.spec.internal
        try:
            pem = await sign_intermediate(
                vault,
                credentials_in(data, vault.auth),
                request=question.request,
                common_name=spec.subject.common_name if spec is not None else "",
                duration=question.duration,
                path_length=spec.path_length if spec is not None else None,
            )
        except (InvalidPath, NoCertificate) as error:
            raise InvalidAuthority("IssuerFailed", f"{_name(question.issuer)}: {error}") from None
        except VaultError as error:
            raise _obstacle(question.issuer, vault, error) from None
        return pem.encode()

    async def _request(self, question: CertifyAuthority, ref: IssuerRef) -> bytes:
        """Create the request, or read the answer to it. A request that has ended is deleted."""
        wanted = request_for(question, ref)
        try:
            found = await self._get_or_create(wanted)
        except (Unavailable, Misconfigured):
            raise
        except ClusterError as error:
            return self._raise(question, answer_to_error(error), forbidden=isinstance(error, Forbidden))
        if found.spec.request != wanted.spec.request or found.metadata.labels.get(MANAGED_BY) != MANAGER:
            raise InvalidAuthority(
                "IssuerFailed", f"another CertificateRequest {wanted.metadata.name} is in the way; delete it"
            )
        answer = answer_of(found)
        if not isinstance(answer, Pending):
            await self._delete(found)
        if isinstance(answer, Returned):
            return answer.pem
        return self._raise(question, answer)

    async def _get_or_create(self, wanted: CertificateRequest) -> CertificateRequest:
        try:
            return await self._cluster.create(CERTIFICATE_REQUESTS, wanted)
        except AlreadyExists:
            return await self._cluster.get(CERTIFICATE_REQUESTS, wanted.metadata.namespace, wanted.metadata.name)

    async def _delete(self, found: CertificateRequest) -> None:
        metadata = found.metadata
        try:
            await self._cluster.delete(CERTIFICATE_REQUESTS, metadata.namespace, metadata.name, uid=metadata.uid)
        except (NotFound, Conflict, Forbidden):
            return  # it goes with the CA, which owns it

    def _raise(self, question: CertifyAuthority, answer: Answer, *, forbidden: bool = False) -> NoReturn:
        name, namespace = _name(question.issuer), question.authority.metadata.namespace
        match answer:
            case Pending(reason="Forbidden", message=message) if forbidden:
                account = f"{self._settings.namespace}:{service_account_name('operator')}"
                raise InvalidAuthority(
                    "Forbidden",
                    f"the operator may not create CertificateRequests ({foreign(message)}); allow it with: kubectl"
                    f" create rolebinding kms-acme-certify-cas -n {namespace}"
                    f" --clusterrole=kms-acme-external-cert-manager --serviceaccount={account}",
                )
            case Pending(reason, message):
                raise _StillPending(reason, f"{name}: {foreign(message)}")
            case Denied(message):
                raise InvalidAuthority("Denied", f"{name}: the request was denied: {foreign(message)}")
            case Refused(message):
                raise InvalidAuthority("RefusedByIssuer", f"{name} refuses the request: {foreign(message)}")
            case Failed(message):
                raise InvalidAuthority("IssuerFailed", f"{name}: {foreign(message)}")
            case _:
                raise InvalidAuthority("IssuerFailed", f"{name} has not answered")


class _StillPending(Exception):
    """Somebody works at the request, or will; looking at it costs little."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def request_for(question: CertifyAuthority, ref: IssuerRef) -> CertificateRequest:
    """The CertificateRequest: the same name until the certificate that it replaces has been replaced."""
    metadata = question.authority.metadata
    digest = hashlib.sha256(f"{question.request}{question.replaces:x}".encode()).hexdigest()
    owner = OwnerReference(
        api_version=AUTHORITIES.api_version,
        kind=AUTHORITIES.kind,
        name=metadata.name,
        uid=metadata.uid,
        controller=True,
        block_owner_deletion=False,
    )
    return CertificateRequest(
        metadata=ObjectMeta(
            namespace=metadata.namespace,
            name=request_name(uid=metadata.uid, digest=digest, attempt=1),
            labels={MANAGED_BY: MANAGER},
            owner_references=(owner,),
        ),
        spec=CertificateRequestSpec(
            request=question.request.encode(),
            issuer_ref=ref,
            duration=format_duration(question.duration),
            usages=USAGES,
            is_ca=True,
        ),
    )


def _obstacle(issuer: CertificateAuthority, vault: VaultAuthority, error: VaultError) -> InvalidAuthority:
    """The reason and message for a call that has not led to a certificate. Words of the server are shortened."""
    name = _name(issuer)
    match error:
        case PermissionDenied():
            path = intermediate_path(signing_path(vault.path))
            fix = f'add to its policy: path "{path}" {{ capabilities = ["update"] }}'
            return InvalidAuthority("AuthenticationFailed", f"the token of {name} may not sign CAs; {fix}")
        case LoginFailed():
            return InvalidAuthority("AuthenticationFailed", f"{name}: {error}")
        case Sealed():
            return InvalidAuthority("Sealed", f"{vault.server} is sealed; unseal it")
        case Unreachable():
            return InvalidAuthority("Unreachable", f"{vault.server} cannot be asked: {error}")
        case BadRequest():
            return InvalidAuthority("RefusedByIssuer", f"{name} refuses the request: {foreign(error.words)}")
        case _:
            return InvalidAuthority("IssuerFailed", f"{name}: {error}")


def _return(answer: bytes | tuple[str, str]) -> bytes:
    if isinstance(answer, bytes):
        return answer
    raise InvalidAuthority(*answer)


def _name(issuer: CertificateAuthority) -> str:
    return f"CertificateAuthority {issuer.metadata.namespace}/{issuer.metadata.name}"
