"""`kms-acme ca`: requests of CAs that another CA certifies, and their certificates, with a kubeconfig's rights.

The certificate is checked by the function that the operator uses, before anything is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization.pkcs7 import (
    load_der_pkcs7_certificates,
    load_pem_pkcs7_certificates,
)

from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.contract import READY
from kms.pki.ca import InvalidAuthority, check_answer, complete_chain, request_key
from kms.pki.certificate import certificate_pem
from kms.pki.keys import PublicKey
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.quoting import quoted
from kms.resources.authorities import CertificateAuthority, InternalAuthority
from kms.resources.compile import compile_request
from kms.resources.kinds import AUTHORITIES
from kms.resources.meta import Condition, Key, condition
from kms_acme.status_changes import NotChanged

MAXIMUM_FILE: Final = 1024 * 1024
MAXIMUM_CERTIFICATES: Final = 20
"""Octets of a file, and certificates of all files together."""
_MANAGER = "kms-acme-ca-install"
_RECONCILED, _KEY_LOST = "Reconciled", "KeyLost"
_PEM, _PKCS7 = b"-----BEGIN CERTIFICATE-----", b"-----BEGIN PKCS7-----"

Sleep = Callable[[float], Awaitable[None]]
Chain = tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Requested:
    """A CA that is certified by request: its object, that part of its spec, and the request with its key."""

    authority: CertificateAuthority
    spec: InternalAuthority
    request: str
    public_key: PublicKey

    @property
    def chain(self) -> Chain:
        """What it signs with at present; empty without a certificate."""
        try:
            return tuple(x509.load_pem_x509_certificates((self.authority.status.chain or "").encode()))
        except PARSER_ERRORS:
            return ()


async def find_requested(
    cluster: Cluster, key: Key, *, wait: float, sleep: Sleep = asyncio.sleep, pace: float = 0.5
) -> Requested:
    """The CA with its request, which the operator makes for the present spec within `wait` seconds.

    Raises NotChanged if there is none, or the key that it is for is lost, and ClusterError.
    """
    name, why = "/".join(key), ""
    for attempt in range(int(wait / pace) + 1):
        if attempt:
            await sleep(pace)
        try:
            found = await cluster.get(AUTHORITIES, *key)
        except errors.NotFound:
            raise NotChanged(f"there is no CertificateAuthority {name}") from None
        spec = found.spec.internal
        if spec is None or spec.signed_by is None:
            raise NotChanged(
                f'CertificateAuthority {name} is not certified by request: spec.internal lacks "signedBy: Request"'
            )
        stated = condition(found.status.conditions, READY)
        if stated is None or (stated.observed_generation or 0) < found.metadata.generation:
            why = "no operator has processed it, as it is now"
            continue
        why = f"{stated.reason}: {stated.message}"
        if found.status.request is None or stated.reason == _KEY_LOST:
            continue
        read = request_key(found.status.request)
        if read is None:
            raise NotChanged(f"status.request of CertificateAuthority {name} cannot be read")
        return Requested(found, spec, found.status.request, read[1])
    raise NotChanged(f"CertificateAuthority {name} has no request that can be signed; {why}")


def read_certificates(content: bytes) -> Sequence[x509.Certificate]:
    """The certificates in a file: PEM, DER, or PKCS #7 in either form, as CAs of Microsoft give them.

    Raises ValueError with a clause that says what is wrong.
    """
    if len(content) > MAXIMUM_FILE:
        raise ValueError(f"has more than {MAXIMUM_FILE} octets")
    if b"PRIVATE KEY-----" in content:
        raise ValueError("has a private key; only certificates are installed, and the key never leaves the cluster")
    if b"CERTIFICATE REQUEST-----" in content:
        raise ValueError("has a certificate request; install the certificate that was issued for it")
    for load, applies in (
        (x509.load_pem_x509_certificates, _PEM in content),
        (load_pem_pkcs7_certificates, _PKCS7 in content),
        (lambda der: [x509.load_der_x509_certificate(der)], content[:1] == b"\x30"),
        (load_der_pkcs7_certificates, content[:1] == b"\x30"),
    ):
        if applies:
            try:
                return load(content)
            except PARSER_ERRORS:
                continue
    raise ValueError("has no certificate that can be read, in PEM, DER or PKCS #7")


def arrange(
    certificates: Iterable[x509.Certificate], public_key: PublicKey, *, known: Iterable[x509.Certificate] = ()
) -> Chain:
    """The certificates in the order of a chain, that of the key first; those that miss are taken from `known`.

    Raises InvalidAuthority (ChainBroken) for a certificate that does not belong to the chain.
    """
    given = list(dict.fromkeys(certificates))
    own = sorted((each for each in given if each.public_key() == public_key), key=lambda one: one.not_valid_before_utc)
    if not own:
        return tuple(given)  # the check says what is wrong
    chain = complete_chain((own[-1],), (*given, *known))
    if strangers := [each for each in given if each not in chain]:
        fix = "leave it out" if chain[-1].issuer == chain[-1].subject else _add_issuer(chain[-1])
        raise InvalidAuthority(
            "ChainBroken", f"{_subject(strangers[0])} does not belong to the chain of {_subject(chain[0])}; {fix}"
        )
    return chain


def check(requested: Requested, chain: Chain, *, clock: Clock) -> None:
    """Check the chain as the operator will. Raises InvalidAuthority."""
    check_answer(chain, compile_request(requested.spec), requested.public_key, now=clock())


async def install(cluster: Cluster, requested: Requested, chain: Chain) -> CertificateAuthority:
    """Write `spec.internal.certificate`. Raises ClusterError, and Conflict if the object was created again."""
    metadata = requested.authority.metadata
    body = {
        "apiVersion": AUTHORITIES.api_version,
        "kind": AUTHORITIES.kind,
        "metadata": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid},
        "spec": {"internal": {"certificate": "".join(map(certificate_pem, chain))}},
    }
    return await cluster.apply(AUTHORITIES, body, manager=_MANAGER)


async def wait_until_used(
    cluster: Cluster,
    written: CertificateAuthority,
    chain: Chain,
    *,
    wait: float,
    on_progress: Callable[[str], None],
    sleep: Sleep = asyncio.sleep,
    pace: float = 0.5,
) -> Condition | None:
    """Wait until the operator has taken the certificate. Returns the condition that refuses it, or None.

    `on_progress` is called with each state on the way. Raises NotChanged after `wait` seconds, and ClusterError.
    """
    key = written.metadata.namespace, written.metadata.name
    last = ""
    for attempt in range(int(wait / pace) + 1):
        if attempt:
            await sleep(pace)
        try:
            found = await cluster.get(AUTHORITIES, *key)
        except errors.NotFound:
            raise NotChanged(f"CertificateAuthority {'/'.join(key)} was deleted") from None
        status = found.status
        ready, aside = condition(status.conditions, READY), condition(status.conditions, _RECONCILED)
        state = "waiting for the operator"
        if ready is not None and (ready.observed_generation or 0) >= written.metadata.generation:
            if ready.status != "True":
                return ready
            if aside is not None and aside.status == "False":
                return aside
            if status.certificate == certificate_pem(chain[0]):
                return None
            state = "waiting for the certificate in the status"
        if state != last:
            on_progress(state)
            last = state
    raise NotChanged(
        f"the operator has not taken the certificate within {timedelta(seconds=int(wait))}; it does as soon as it runs:"
        f" kubectl -n {key[0]} describe kca {key[1]}"
    )


def _add_issuer(certificate: x509.Certificate) -> str:
    return f"add the certificate of {quoted(certificate.issuer.rfc4514_string())}, which is missing"


def _subject(certificate: x509.Certificate) -> str:
    return quoted(certificate.subject.rfc4514_string())
