"""Which chains orders refer to, as garbage collection sees them while it lists all orders."""

from __future__ import annotations

from datetime import datetime

from acme_server.state.chain_rules import end_of_chain, has_outlived_its_use
from kms.resources.certificate_chains import CertificateChain
from kms.resources.meta import Key, Unreadable, key_of
from kms.resources.orders import ACMEOrder


class NeededChains:
    """The chains that orders refer to. An order that cannot be read may refer to any chain of its namespace."""

    def __init__(self) -> None:
        self._chains: set[Key] = set()
        self._unknown: set[str] = set()

    def add(self, order: ACMEOrder) -> None:
        """Keep the chain to which the order refers, if it refers to one."""
        if order.status.chain_ref is not None:
            self._chains.add((order.metadata.namespace, order.status.chain_ref.name))

    def add_unreadable(self, order: Unreadable) -> None:
        """Keep all chains of the namespace."""
        self._unknown.add(order.metadata.namespace)

    def is_due(self, chain: CertificateChain, *, now: datetime) -> bool:
        """Whether the chain may be deleted, once all orders have been added."""
        if key_of(chain) in self._chains or chain.metadata.namespace in self._unknown:
            return False  # as most are: a digest and a certificate cost too much to read them for nothing
        ends = end_of_chain(chain.spec.certificates) if chain.is_genuine else None
        return has_outlived_its_use(ends, now=now)
