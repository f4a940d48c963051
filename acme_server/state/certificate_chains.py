"""The chains of certificates: stored once, and put together again with the certificates of orders.

A chain is a CertificateChain, whose name is its digest. An order that refers to one costs no further read or write: the
chain is created with the first order that needs it, and known from a watch afterwards. Where that is not possible, the
order has the whole chain, as those of earlier releases do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from acme_server.problems import Unavailable
from acme_server.state.chain_rules import ChainLimits, best_chain, client_chains, end_of_chain, may_refer
from acme_server.state.store import answering_unavailable
from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.cluster.retry import Timing
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import CertificateAuthority
from kms.resources.certificate_chains import (
    MAXIMUM_LENGTH,
    CertificateChain,
    CertificateChainSpec,
    chain_name,
    is_chain_name,
    split_chain,
)
from kms.resources.kinds import CERTIFICATE_CHAINS
from kms.resources.meta import LocalRef, ObjectMeta, key_of
from kms.resources.orders import ACMEOrder
from kms.shares import HALF, share_of

logger = logging.getLogger(__name__)

_REPAIR = 30
"""Seconds until a client should try again while a person has to restore a chain."""
_REMEMBERED = 16 * 2**20
"""Octets of deleted chains that are remembered: a restore of etcd shows all as gone at once."""
_OVERHEAD = 512
"""Octets that a remembered chain takes beside its text."""


class ChainMissing(Unavailable):
    """The chain to which an order refers is gone, or is not what its name says; a person has to restore it."""

    def __init__(self) -> None:
        super().__init__("The chain of the certificate cannot be read.", _REPAIR)


@dataclass(slots=True)
class _Known:
    """The chains of a namespace: their octets, and the texts and ends of those that are what their name says."""

    octets: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    ends: dict[str, datetime] = field(default_factory=dict)


class CertificateChains:
    """The chains of the watched namespaces (by default all).

    `all_read_references` says whether every replica can read orders that refer to their chain. `authorities` returns
    all CertificateAuthorities. After a refusal of the API server, orders get the whole chain for `pause`; it is asked
    for its chains again after `refused` seconds where it does not serve them.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespaces: Sequence[str] = (),
        all_read_references: Callable[[], bool],
        authorities: Callable[[], Iterable[CertificateAuthority]],
        clock: Clock,
        limits: ChainLimits | None = None,
        pause: timedelta = timedelta(minutes=5),
        refused: float = 600.0,
        timing: Timing | None = None,
    ) -> None:
        self._cluster = cluster
        self._all_read_references = all_read_references
        self._authorities = authorities
        self._clock = clock
        self._limits = limits or ChainLimits()
        self._pause = pause
        self._informer = Informer(
            cluster,
            CERTIFICATE_CHAINS,
            namespaces=namespaces,
            on_change=self._on_change,
            timing=timing,
            refused=refused,
        )
        self._known: dict[str, _Known] = {}
        self._octets = 0
        self._deleted: dict[str, str] = {}
        self._deleted_octets = 0
        self._full: set[str] = set()
        """Namespaces of which was logged that they have too many chains."""
        self._paused_until: dict[str, datetime] = {}
        self._not_kept_until: datetime | None = None
        self._writing = asyncio.Lock()

    def __len__(self) -> int:
        """The number of chains."""
        return len(self._informer.values())

    @property
    def synced(self) -> asyncio.Event:
        """Set for good once all chains have been listed."""
        return self._informer.synced

    def values(self) -> Collection[CertificateChain]:
        """All chains as they were last received: a view that must not be kept across an await."""
        return self._informer.values()

    async def remove(self, metadata: ObjectMeta) -> bool:
        """Delete the chain in exactly this version. Returns whether it still existed.

        Raises Conflict if it has another version now, and Unavailable.
        """
        try:
            with answering_unavailable():
                await self._cluster.delete(
                    CERTIFICATE_CHAINS,
                    metadata.namespace,
                    metadata.name,
                    uid=metadata.uid,
                    resource_version=metadata.resource_version,
                )
        except errors.NotFound:
            return False
        return True

    async def run(self) -> None:
        """Keep the chains current until cancelled."""
        await self._informer.run()

    async def reference(self, namespace: str, chain: str, certificate_ends: datetime) -> LocalRef | None:
        """The reference with which an order keeps its certificate alone; None: it keeps the whole `chain` (PEM).

        The first order creates the chain. Never raises for what the API server does.
        """
        others = split_chain(chain)[1]
        if not others or not self._informer.synced.is_set() or not self._all_read_references():
            return None
        now, name = self._clock(), chain_name(others)
        if self._not_kept_until is not None and now < self._not_kept_until:
            return None
        ends = self._ends(namespace, name)
        if ends is None:
            ends = end_of_chain(others)
            if not may_refer(ends, certificate_ends, now=now) or not await self._store(namespace, name, others):
                return None
        return LocalRef(name=name) if may_refer(ends, certificate_ends, now=now) else None

    def note_not_kept(self, error: str) -> None:
        """The API server refuses references to chains: its schema of orders may be that of an earlier release."""
        logger.warning(
            "an order cannot refer to its chain; orders have the whole chain until crds/ is applied",
            extra={"pause": self._pause.total_seconds(), "error": error},
        )
        self._not_kept_until = self._clock() + self._pause

    async def complete(self, order: ACMEOrder) -> str | None:
        """The certificate of the order and those above it (PEM), as clients get them; None: it has no certificate.

        What is not what its name says is never returned, and no certificate without those above it. Raises
        ChainMissing if the chain is gone, unless its text is known here: then it is created again. Raises Unavailable.
        """
        certificate = order.status.certificate
        if certificate is None:
            return None
        first, others = split_chain(certificate)
        if others:
            return first + others
        if order.status.chain_ref is not None:
            found = await self._find(order.metadata.namespace, order.status.chain_ref.name)
        else:
            found = self._chain_above(order, first)
        if found is None:
            reference = order.status.chain_ref
            extra = {"order": "/".join(key_of(order)), "chain": reference.name if reference is not None else None}
            logger.warning("chain of a certificate is missing or was changed", extra=extra)
            raise ChainMissing
        return first + found

    async def _find(self, namespace: str, name: str) -> str | None:
        known = self._informer.get(namespace, name)
        if known is not None and known.is_genuine:
            return known.spec.certificates
        text = self._deleted.get(name) or self._current_chain(namespace, name)
        if text is not None:
            await self._store(namespace, name, text)
            return text
        if not is_chain_name(name):
            return None
        with answering_unavailable():
            try:
                found = await self._cluster.get(CERTIFICATE_CHAINS, namespace, name)
            except errors.NotFound:
                return None
        self._informer.put(found)
        return found.spec.certificates if found.is_genuine else None

    def _current_chain(self, namespace: str, name: str) -> str | None:
        """The chain of that name if it is that of a CA of the namespace now."""
        return next((each for each in self._current_chains(namespace) if chain_name(each) == name), None)

    def _current_chains(self, namespace: str) -> Iterable[str]:
        own = [each for each in self._authorities() if each.metadata.namespace == namespace]
        return (chain for each in own for chain in client_chains(each))

    def _chain_above(self, order: ACMEOrder, certificate: str) -> str | None:
        """A chain for a certificate that has lost its reference, as a program of an earlier release leaves it."""
        try:
            leaf = x509.load_pem_x509_certificate(certificate.encode())
        except PARSER_ERRORS:
            return None
        namespace = order.metadata.namespace
        stored = (
            each.spec.certificates
            for each in self._informer.values()
            if each.metadata.namespace == namespace and each.is_genuine
        )
        return best_chain((*stored, *self._current_chains(namespace)), leaf)

    async def _store(self, namespace: str, name: str, certificates: str) -> bool:
        """Create the chain unless it is there, and return whether it is there then. Raises no ClusterError."""
        async with self._writing:
            if self._ends(namespace, name) is not None:
                return True
            if not self._admits(namespace, certificates):
                return False
            try:
                await self._create(namespace, name, certificates)
            except errors.ClusterError as error:
                self._paused_until[namespace] = self._clock() + self._pause
                extra = {"namespace": namespace, "chain": name, "pause": self._pause.total_seconds()}
                logger.warning("chain cannot be stored; orders have it whole", extra=extra | {"error": str(error)})
                return False
            self._paused_until.pop(namespace, None)
        return True

    def _admits(self, namespace: str, certificates: str) -> bool:
        paused_until = self._paused_until.get(namespace)
        if paused_until is not None and self._clock() < paused_until:
            return False
        own = self._known.get(namespace, _Known()).octets
        used = sum(own.values())
        share = share_of(self._limits.octets, self._octets - used, HALF)
        is_full = len(own) >= self._limits.chains or used + len(certificates) > share
        if len(certificates) > MAXIMUM_LENGTH:
            return False
        if not is_full:
            self._full.discard(namespace)
        elif namespace not in self._full:
            self._full.add(namespace)
            logger.warning("too many chains; further orders have them whole", extra={"namespace": namespace})
        return not is_full

    async def _create(self, namespace: str, name: str, certificates: str) -> None:
        """Create the chain, in the place of one that is not what its name says. Raises ClusterError."""
        wanted = CertificateChain(
            metadata=ObjectMeta(namespace=namespace, name=name), spec=CertificateChainSpec(certificates=certificates)
        )
        try:
            stored = await self._cluster.create(CERTIFICATE_CHAINS, wanted)
        except errors.AlreadyExists:
            stored = await self._cluster.get(CERTIFICATE_CHAINS, namespace, name)
            if not stored.is_genuine:
                logger.warning("chain was changed; it is created again", extra={"namespace": namespace, "chain": name})
                await self._cluster.delete(CERTIFICATE_CHAINS, namespace, name, uid=stored.metadata.uid)
                stored = await self._cluster.create(CERTIFICATE_CHAINS, wanted)
        if not stored.is_genuine:
            raise errors.Invalid("the chain was changed on its way into the cluster")
        self._informer.put(stored)

    def _ends(self, namespace: str, name: str) -> datetime | None:
        """When the chain ends; None: it is not known, or not what its name says."""
        known = self._known.get(namespace)
        return known.ends.get(name) if known is not None else None

    def _on_change(self, chain: CertificateChain, deleted: bool) -> None:  # noqa: FBT001 - the signature of informers
        namespace, name = key_of(chain)
        known = self._known.setdefault(namespace, _Known())
        self._octets -= known.octets.pop(name, 0)
        known.ends.pop(name, None)
        certificates, is_genuine = chain.spec.certificates, chain.is_genuine
        before = known.texts.pop(name, None)
        if before is not None and (deleted or not is_genuine):  # a watch that was interrupted shows no deletion
            self._remember(name, before)
        if deleted:
            if not known.octets:
                del self._known[namespace]
            return
        known.octets[name] = len(certificates)
        self._octets += len(certificates)
        if is_genuine:
            known.texts[name] = certificates
        ends = end_of_chain(certificates) if is_genuine else None
        if ends is None:
            logger.warning("chain is not what its name says", extra={"namespace": namespace, "chain": name})
        else:
            known.ends[name] = ends

    def _remember(self, name: str, certificates: str) -> None:
        if name not in self._deleted:
            self._deleted[name] = certificates
            self._deleted_octets += len(certificates) + _OVERHEAD
        while self._deleted_octets > _REMEMBERED:
            self._deleted_octets -= len(self._deleted.pop(next(iter(self._deleted)))) + _OVERHEAD
