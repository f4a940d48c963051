"""Revocation (RFC 8555, 7.6).

A certificate can be revoked by the account that it was issued to, an account that has proven control of all its names,
and the holder of its key. Senders who may not revoke it learn nothing about it, not even whether it is revoked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.service import Accounts
from acme_server.audit.log import decisions
from acme_server.certificates.chains import leaf_of
from acme_server.certificates.propagation import Propagation
from acme_server.certificates.revocation_reasons import subscriber_reason
from acme_server.jose.decoding import malformed
from acme_server.model import Caller, KeyHolder, Profile
from acme_server.orders import transitions
from acme_server.orders.lifetimes import is_over, is_usable
from acme_server.problems import NotFound, ProblemType, Refused, Unavailable
from acme_server.state.authorizations import Authorizations, Holder, ProvenAuthorization, own_authorization
from acme_server.state.certificates import CertificateRecord, Certificates
from acme_server.state.revocation_recorder import RevocationRecorder
from acme_server.state.store import Store
from acme_server.state.turns import Turns
from kms.clock import Clock
from kms.pki.certificate import issuer_id
from kms.pki.crl import KEY_COMPROMISE
from kms.pki.keys import PublicKey, same_public_key
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, Identifier

_SAME_SERIAL = 50
"""Orders with one serial number: it is unique for each CA, and a namespace has fewer CAs."""
_PAGE = 500
"""Objects of a page of metadata: about 800 kB."""
_UNKNOWN = "There is no such certificate in this profile."


class Revocations:
    """Revokes certificates."""

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        accounts: Accounts,
        credentials: EABCredentials,
        certificates: Certificates,
        recorder: RevocationRecorder,
        authorizations: Authorizations,
        propagation: Propagation,
        turns: Turns,
        clock: Clock,
    ) -> None:
        self._orders = orders
        self._accounts = accounts
        self._credentials = credentials
        self._certificates = certificates
        self._recorder = recorder
        self._authorizations = authorizations
        self._propagation = propagation
        self._turns = turns
        self._clock = clock

    async def revoke(self, caller: Caller | KeyHolder, der: bytes, reason: int | None) -> None:
        """Revoke the certificate in `der` for the reason with that code. Costs two writes.

        The second write is the RevocationRecord: the revocation then outlives the order. Where it fails, the order is
        revoked, and the server that runs garbage collection repeats it.

        Raises Refused: malformed, unauthorized, badRevocationReason, alreadyRevoked; NotFound if the profile has not
        issued the certificate; Unavailable; and NotTaken if the CA is external and takes no revocations, after
        it was recorded.
        """
        leaf = parse_certificate(der)
        if isinstance(caller, KeyHolder):
            # Before any lookup: certificates are public, and everybody can make a key.
            _require_key_of(leaf, caller.key.public_key)
        record = await self._record(caller, leaf)
        order = await self._order(record, der)
        if isinstance(caller, Caller):
            await self._require_right(caller, order)
        words = subscriber_reason(reason)
        now = self._clock()
        if is_over(record.not_after, now=now) and words != KEY_COMPROMISE:
            # A compromised key must still be barred; other revocations of an expired certificate have no effect.
            raise Refused(ProblemType.UNAUTHORIZED, "The certificate has expired, so the reason must be keyCompromise.")
        by_key = isinstance(caller, KeyHolder)
        order = await self._revoked(order, words, by_key=by_key)
        await self._recorder.record_order(order)
        decisions.info(
            "certificate revoked",
            extra={
                "order": order.metadata.name,
                "profile": "/".join(caller.profile.key),
                "account": caller.account.metadata.name if isinstance(caller, Caller) else None,
                "by": "certificate key" if by_key else "account",
                "names": ",".join(each.value for each in order.spec.identifiers),
                "serial": record.serial_number,
                "reason": words,
            },
        )
        await self._propagation.propagate(order)

    async def _revoked(self, order: ACMEOrder, reason: str, *, by_key: bool) -> ACMEOrder:
        """Record the revocation. A request that its CA has yet to carry out may be repeated.

        Raises Refused (alreadyRevoked) and Unavailable.
        """
        now = self._clock()

        def transition(current: ACMEOrder) -> ACMEOrder:
            requested = self._propagation.mode(current) in {"Propagate", "Refuse"}
            return transitions.revoked(current, reason, by_key=by_key, requested=requested, now=now)

        try:
            return await self._orders.change(order, transition)
        except Refused as refused:
            current = await self._orders.current(*key_of(order))
            if refused.type is not ProblemType.ALREADY_REVOKED or current is None:
                raise
            if not self._propagation.is_open(current):
                raise
            return current

    async def _record(self, caller: Caller | KeyHolder, leaf: x509.Certificate) -> CertificateRecord:
        """The record of the certificate, if the profile issued it. Raises NotFound and Unavailable.

        The watch may not have delivered a certificate that another replica has just issued. For an account, a LIST of
        the orders with that serial number finds it. There is no such list for the holder of a key, who gets a
        certificate later than the watch.
        """
        issuer, serial_number = issuer_id(leaf), f"{leaf.serial_number:x}"
        found = self._of(caller.profile, issuer, serial_number)
        known = self._certificates.is_complete(caller.profile.namespace) and self._orders.is_sole_writer()
        if found is None and isinstance(caller, Caller) and not known:
            async with self._turns.take(caller.account):
                # Updates the index of certificates.
                fields = f"status.serialNumber={serial_number}"
                await self._orders.page(caller.profile.namespace, fields=fields, limit=_SAME_SERIAL)
            found = self._of(caller.profile, issuer, serial_number)
        if found is None and not self._certificates.is_complete(caller.profile.namespace):
            raise Unavailable("The server is still reading its certificates.", 5)
        if found is None:
            raise _no_such_certificate()
        return found

    def _of(self, profile: Profile, issuer: str, serial_number: str) -> CertificateRecord | None:
        found = self._certificates.certificate(profile.namespace, issuer, serial_number)
        return found if found is not None and found.profile == profile.name else None

    async def _order(self, record: CertificateRecord, der: bytes) -> ACMEOrder:
        """The order with exactly this certificate: issuer and serial number alone prove nothing.

        Raises NotFound, and Unavailable if the certificate in the order cannot be read.
        """
        order = await self._orders.get(*record.order)
        if order is None or order.status.certificate is None:
            raise _no_such_certificate()
        if leaf_of(order, order.status.certificate).public_bytes(Encoding.DER) != der:
            raise _no_such_certificate()
        return order

    async def _require_right(self, caller: Caller, order: ACMEOrder) -> None:
        """Raise Refused (unauthorized) unless the account owns the certificate or has proven all its names.

        An account that may not act revokes its own certificates, but no others.
        """
        account = await self._accounts.read(caller.account)
        if order.spec.account_ref.name == account.metadata.name:
            return
        await self._accounts.admit(Caller(caller.profile, account))
        if not await self._has_proven(account, order.spec.identifiers):
            raise Refused(
                ProblemType.UNAUTHORIZED,
                "The certificate was issued to another account, and this one has no valid authorization for all names.",
            )

    async def _has_proven(self, account: ACMEAccount, identifiers: Collection[Identifier]) -> bool:
        """Whether the account has a valid authorization of its own for each identifier. Raises Unavailable.

        Authorizations that its orders reuse, or that need no proof, do not count, nor do those of other clients: the
        credential of the account may have been given to another namespace. The index of authorizations names the
        orders; where other replicas may have written, they are read live before the answer is yes or no.
        """
        known = self._authorizations.complete and self._orders.is_sole_writer()
        if not known and any(self._find(account, each) is None for each in identifiers):
            async with self._turns.take(account):
                await self._read_unseen(account)
        clients = self._credentials.clients(account)
        if clients is not None and clients.shared:
            return False
        proofs = {each: self._find(account, each) for each in identifiers}
        if None in proofs.values():
            if self._authorizations.full:
                raise Unavailable("The server does not know all authorizations at the moment.", 60)
            return False
        namespace = clients.namespace if clients is not None else None
        found = {each: proof for each, proof in proofs.items() if proof is not None}
        return await self._hold(account, found, client_namespace=namespace)

    def _find(self, account: ACMEAccount, identifier: Identifier) -> ProvenAuthorization | None:
        return self._authorizations.find(Holder(*key_of(account), identifier))

    async def _read_unseen(self, account: ACMEAccount) -> None:
        """Read the orders of the account that the watch has not delivered yet. Raises Unavailable."""
        # By field, not by label: pre-authorizations have no label.
        fields, token = f"spec.accountRef.name={account.metadata.name},status.state!=invalid", ""
        while True:
            found, token = await self._orders.metadata_page(
                account.metadata.namespace, fields=fields, limit=_PAGE, token=token
            )
            for each in found:
                if not self._authorizations.has_seen(each):
                    await self._orders.read_live(each.namespace, each.name)
            if not token:
                return

    async def _hold(
        self,
        account: ACMEAccount,
        proofs: Mapping[Identifier, ProvenAuthorization],
        *,
        client_namespace: str | None,
    ) -> bool:
        """Whether the orders, for clients of that namespace, say what the index says. Each order is read once."""
        now = self._clock()
        orders = {proof.key: await self._orders.current(*proof.key) for proof in set(proofs.values())}
        for identifier, proof in proofs.items():
            order = orders[proof.key]
            if order is None or order.spec.account_ref.name != account.metadata.name:
                return False
            if order.spec.client_namespace != client_namespace:
                return False
            own = own_authorization(order, proof.position)
            if own is None or order.spec.identifiers[proof.position] != identifier or not is_usable(own, now=now):
                return False
        return True


def parse_certificate(der: bytes) -> x509.Certificate:
    """The certificate in DER. Raises Refused (malformed), also for PEM and for octets before or after the DER."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.serial_number, certificate.public_key(), issuer_id(certificate)
    except PARSER_ERRORS:
        raise malformed(
            "The certificate must be exactly one X.509 certificate in DER, in base64url; PEM is not accepted."
        ) from None
    return certificate


def _require_key_of(leaf: x509.Certificate, key: PublicKey) -> None:
    """Raise Refused (unauthorized) unless it is the key of the certificate, in any encoding."""
    own = leaf.public_key()
    if not isinstance(own, PublicKey) or not same_public_key(own, key):
        raise Refused(ProblemType.UNAUTHORIZED, "The key in the request is not that of the certificate.")


def _no_such_certificate() -> Refused:
    return NotFound(_UNKNOWN)
