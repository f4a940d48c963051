"""Which CAs issue below the trust anchors of external CAs: learned from chains that were verified.

After a restart it is learned from the latest certificate that is stored, once for each CA.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509

from acme_server.orders.submission import known_chain, trust_anchors
from acme_server.problems import Unavailable
from acme_server.state.certificate_chains import CertificateChains, ChainMissing
from acme_server.state.certificates import Certificates
from acme_server.state.store import Store
from kms.clock import Clock
from kms.pki.returned import issuing_chain
from kms.resources.authorities import CertificateAuthority
from kms.resources.orders import ACMEOrder

MAXIMUM: Final = 1_000

Chain = tuple[x509.Certificate, ...]


class IssuingChains:
    """The chains of `maximum` CAs, those that issued last: the certificates above those that a CA has issued.

    Each begins with the issuing CA and ends with a trust anchor.
    """

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        stored: CertificateChains,
        certificates: Certificates,
        clock: Clock,
        maximum: int = MAXIMUM,
    ) -> None:
        self._orders = orders
        self._stored = stored
        self._certificates = certificates
        self._clock = clock
        self._maximum = maximum
        self._chains: dict[str, Chain] = {}
        self._reading: set[str] = set()

    def __len__(self) -> int:
        """The number of CAs whose chain, or whose lack of one, is known."""
        return len(self._chains)

    def get(self, authority: CertificateAuthority) -> Chain:
        """The chain as far as it is known; empty if it is not."""
        return self._chains.get(authority.metadata.uid, ())

    def put(self, authority: CertificateAuthority, chain: Chain) -> None:
        """Remember a chain that was verified."""
        uid = authority.metadata.uid
        self._chains.pop(uid, None)
        self._chains[uid] = chain
        while len(self._chains) > self._maximum:
            del self._chains[next(iter(self._chains))]

    async def recall(self, authority: CertificateAuthority) -> None:
        """Learn the chain from the latest certificate of the CA, unless that was tried before.

        Takes one or two reads for each CA. What is stored is verified again: others may have written it.
        """
        uid, namespace = authority.metadata.uid, authority.metadata.namespace
        if uid in self._chains or uid in self._reading or not self._certificates.is_complete(namespace):
            return
        latest = self._certificates.latest_of(namespace, authority.metadata.name)
        if latest is None:
            self.put(authority, ())
            return
        self._reading.add(uid)
        try:
            order = await self._orders.read_live(*latest.order)
            pem = await self._stored.complete(order) if order is not None else None
        except ChainMissing:
            pem = None
        except Unavailable:
            return  # the next call tries again
        finally:
            self._reading.discard(uid)
        anchors, known = trust_anchors(authority), known_chain(authority)
        chain = issuing_chain((pem or "").encode(), anchors, known=known, now=self._clock())
        if uid not in self._chains:  # meanwhile it may have issued
            self.put(authority, chain)
