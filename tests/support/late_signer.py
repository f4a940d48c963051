"""A signer of Kubernetes that is somebody else's program, and takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.cluster.client import Cluster
from kms.cluster.errors import Conflict, NotFound
from kms.cluster.informer import Informer
from kms.issuers.protocol import Submission
from kms.resources.certmanager import RequestCondition
from kms.resources.kinds import SIGNING_REQUESTS
from kms.resources.signing_requests import CertificateSigningRequest, SigningRequestStatus
from tests.support.eventually import in_background
from tests.support.scripted_issuer import certified_as

SIGNER = "signer.example.com/late"
_POLL = 0.2
_GOODBYE = 0.25
"""Seconds for TLS connections to close, since aiohttp offers no way to await it."""


@asynccontextmanager
async def late_signer(kubeconfig: str, *, after: float) -> AsyncIterator[None]:
    """Approve and sign each request for SIGNER when it is `after` seconds old, while the block runs."""
    admin = await Cluster.connect(kubeconfig=kubeconfig)
    informer: Informer[CertificateSigningRequest] = Informer(admin, SIGNING_REQUESTS)
    try:
        async with in_background(informer.run()), in_background(_sign_all(admin, informer, timedelta(seconds=after))):
            yield
    finally:
        await admin.close()
        await asyncio.sleep(_GOODBYE)


async def _sign_all(admin: Cluster, informer: Informer[CertificateSigningRequest], after: timedelta) -> None:
    while True:
        now = datetime.now(UTC)
        for each in tuple(informer.values()):
            created = each.metadata.creation_timestamp
            is_due = created is not None and now - created >= after
            if is_due and each.spec.signer_name == SIGNER and not each.status.certificate:
                try:
                    await _sign(admin, each)
                except (Conflict, NotFound):  # the watch will tell what it is now
                    continue
        await asyncio.sleep(_POLL)


async def _sign(admin: Cluster, request: CertificateSigningRequest) -> None:
    if request.condition("Approved") is None:
        approval = RequestCondition(type="Approved", status="True", reason="Late", message="by a test")
        status: SigningRequestStatus = replace(request.status, conditions=(approval,))
        request = await admin.replace_status(SIGNING_REQUESTS, replace(request, status=status), subresource="approval")
    asked = Submission(
        name=request.metadata.name,
        order=("", ""),
        order_uid="",
        attempt=1,
        request=x509.load_pem_x509_csr(request.spec.request).public_bytes(Encoding.DER),
        usages=request.spec.usages,
        duration=timedelta(seconds=request.spec.expiration_seconds or 0),
    )
    signed: SigningRequestStatus = replace(request.status, certificate=certified_as(asked).pem)
    await admin.replace_status(SIGNING_REQUESTS, replace(request, status=signed))
