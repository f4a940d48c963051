"""Stores what a CA has signed: the certificate alone where the order can refer to its chain, or else all of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from acme_server.orders import transitions
from acme_server.state.certificate_chains import CertificateChains
from acme_server.state.store import NotKept, Store
from kms.issuers import Issued
from kms.resources.orders import ACMEOrder


class CertificateStorage:
    """Writes certificates into orders, once each."""

    def __init__(self, *, orders: Store[ACMEOrder], chains: CertificateChains) -> None:
        self._orders = orders
        self._chains = chains

    async def store(
        self,
        order: ACMEOrder,
        *,
        digest: str,
        certificate: Issued,
        left_out: Sequence[str] = (),
        shortened_from: timedelta | None = None,
        now: datetime,
    ) -> ACMEOrder:
        """Apply the transition `issued`, and return the order. Raises what that raises, Vanished and Unavailable."""
        issued = partial(
            transitions.issued,
            digest=digest,
            certificate=certificate,
            left_out=left_out,
            shortened_from=shortened_from,
            now=now,
        )
        chain = await self._chains.reference(order.metadata.namespace, certificate.chain, certificate.not_after)
        if chain is None:
            return await self._orders.change(order, issued)
        try:
            return await self._orders.change(order, partial(issued, chain_ref=chain))
        except NotKept as refused:
            self._chains.note_not_kept(str(refused.__cause__))
            return await self._orders.change(order, issued)
