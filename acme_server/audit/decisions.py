"""What a change decides: from an object before and after a write, the lines that it is worth.

Each write is guarded by the resourceVersion, so exactly one replica makes it and writes its lines. Refusals change no
object; the edge records them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from acme_server.audit.actor import Actor
from acme_server.audit.record import SCHEMA, AuditRecord, By, Decision, NamespacedName, detail, names, problems
from kms.clock import in_utc
from kms.contract import READY
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key, condition
from kms.resources.orders import ACMEOrder, Authorization, Challenge, StoredProblem
from kms.resources.revocations import RevocationRecord

_ENDED = frozenset({"valid", "invalid"})
_REFUSED_CERTIFICATE = "IssuanceFailed"
"""The reason of an order that ends in finalize, without having been in processing."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all lines of one moment have in common: time, replica and actor.

    `find_account` finds an account that this replica has at hand.
    """

    time: datetime
    replica: str
    actor: Actor | None
    find_account: Callable[[str, str], ACMEAccount | None] = lambda _namespace, _name: None

    def record(self, decision: Decision, *, by: By | None = None, **members: Any) -> AuditRecord:
        """A line with these members; without `by`, the actor has decided or asked."""
        actor = self.actor
        if by == "administrator":  # the change may have been seen while a client's request was answered
            actor = None
            members.pop("acting_account", None)
        return AuditRecord(
            schema=SCHEMA,
            time=timestamp(self.time),
            replica=self.replica,
            decision=decision,
            by=by or _by(actor),
            client=actor.address if actor is not None else None,
            **members,
        )

    def of_account(self, account: ACMEAccount) -> dict[str, Any]:
        """The members that say which account."""
        return {
            "namespace": account.metadata.namespace,
            "profile": account.spec.profile_ref.name,
            "account": account.metadata.name,
            "credential": credential_name(account.credential),
            "acting_account": self._acting(account.metadata.namespace, account.metadata.name),
        }

    def of_order(self, order: ACMEOrder) -> dict[str, Any]:
        """The members that say which order, of which account, for which names."""
        namespace, owner = order.metadata.namespace, order.spec.account_ref.name
        if self.actor is not None and self.actor.account == (namespace, owner):
            credential = self.actor.credential
        else:
            account = self.find_account(namespace, owner)
            credential = account.credential if account is not None else None
        kept, omitted = names(each.value for each in order.spec.identifiers)
        return {
            "namespace": namespace,
            "profile": order.spec.profile_ref.name,
            "account": owner,
            "credential": credential_name(credential),
            "client_namespace": order.spec.client_namespace,
            "acting_account": self._acting(namespace, owner),
            "order": order.metadata.name,
            "names": kept,
            "names_omitted": omitted,
        }

    def _acting(self, namespace: str, owner: str) -> str | None:
        acting = self.actor.account if self.actor is not None else None
        return acting[1] if acting is not None and acting != (namespace, owner) else None


def _by(actor: Actor | None) -> By:
    if actor is None:
        return "server"
    return "key" if actor.account is None else "account"


def timestamp(moment: datetime) -> str:
    """The time as RFC 3339 in UTC."""
    return in_utc(moment).isoformat(timespec="seconds").replace("+00:00", "Z")


def credential_name(key: Key | None) -> NamespacedName | None:
    """The EABCredential as lines name it."""
    return NamespacedName(namespace=key[0], name=key[1]) if key is not None else None


def of_order(before: ACMEOrder | None, after: ACMEOrder, envelope: Envelope) -> Iterator[AuditRecord]:
    """The lines of a write of an order; None: it was created."""
    if before is None:
        decision: Decision = "authorization.opened" if after.spec.preauthorization else "order.opened"
        yield envelope.record(decision, **envelope.of_order(after))
        return
    failed_challenge = False
    for earlier, later in zip(before.status.authorizations, after.status.authorizations, strict=False):
        if later is earlier:
            continue
        if later.state == "deactivated" and earlier.state != "deactivated":
            yield envelope.record("authorization.deactivated", **_of_authorization(after, later, envelope))
        for challenge in _decided(earlier, later):
            failed_challenge = failed_challenge or challenge.state == "invalid"
            yield envelope.record(
                "challenge.valid" if challenge.state == "valid" else "challenge.invalid",
                **_of_authorization(after, later, envelope),
                challenge=challenge.type,
                **_of_problem(challenge.error),
            )
    status = after.status
    if status.state == "valid" != before.status.state:
        yield envelope.record("certificate.issued", **envelope.of_order(after), **_of_certificate(after))
    if status.state == "invalid" != before.status.state and not failed_challenge:
        ready = condition(status.conditions, READY)
        reason = ready.reason if ready is not None else None
        refused = before.status.state == "processing" or reason == _REFUSED_CERTIFICATE
        yield envelope.record(
            "certificate.refused" if refused else "order.invalid",
            **envelope.of_order(after),
            reason=reason,
            **_of_problem(status.error),
        )
    if status.revocation is not None and status.revocation != before.status.revocation:
        yield envelope.record(
            "certificate.revoked",
            **envelope.of_order(after),
            **_of_certificate(after),
            reason=status.revocation.reason,
        )


def _decided(earlier: Authorization, later: Authorization) -> Iterator[Challenge]:
    ended = {each.type for each in earlier.challenges if each.state in _ENDED}
    return (each for each in later.challenges if each.state in _ENDED and each.type not in ended)


def _of_authorization(order: ACMEOrder, authorization: Authorization, envelope: Envelope) -> dict[str, Any]:
    prefix = "*." if authorization.wildcard else ""
    kept, omitted = names([prefix + authorization.identifier.value])
    return envelope.of_order(order) | {"names": kept, "names_omitted": omitted}


def _of_certificate(order: ACMEOrder) -> dict[str, Any]:
    status = order.status
    return {
        "serial_number": status.serial_number,
        "authority_key_id": status.authority_key_id,
        "not_before": timestamp(status.not_before) if status.not_before is not None else None,
        "not_after": timestamp(status.not_after) if status.not_after is not None else None,
    }


def _of_problem(problem: StoredProblem | None) -> dict[str, Any]:
    if problem is None:
        return {}
    named = ((each.type, each.identifier.value, each.detail) for each in problem.subproblems if each.identifier)
    return {"rule": problem.type, "detail": detail(problem.detail), "problems": problems(named)}


def of_account(before: ACMEAccount | None, after: ACMEAccount, envelope: Envelope) -> Iterator[AuditRecord]:
    """The lines of a write of an account; None: it was created, and is not open yet."""
    if before is None or after.spec.alias_of is not None:
        return
    old, new = before.status, after.status
    if old.state is None:
        if new.state is not None:
            yield envelope.record("account.opened", **envelope.of_account(after))
        return
    if new.state == "deactivated" != old.state:
        yield envelope.record("account.deactivated", **envelope.of_account(after))
    if before.thumbprint != after.thumbprint:
        yield envelope.record("account.keyChanged", **envelope.of_account(after))
    if (old.contact, old.terms_of_service_agreed) != (new.contact, new.terms_of_service_agreed):
        yield envelope.record("account.updated", **envelope.of_account(after))


def of_revocation_record(record: RevocationRecord, envelope: Envelope) -> Iterator[AuditRecord]:
    """The line of a record that the server adds later, for what no client has asked it: an administrator revoked it."""
    spec = record.spec
    where = {"namespace": spec.namespace, "profile": spec.profile}
    if envelope.actor is not None:
        return  # the write of the order or account has its line
    if spec.certificate is not None:
        yield envelope.record(
            "certificate.revoked",
            by="administrator",
            **where,
            serial_number=spec.certificate.serial_number,
            authority_key_id=spec.certificate.authority_key_id,
            not_after=timestamp(spec.certificate.not_after),
            reason=spec.certificate.reason,
        )
    elif spec.account is not None:
        yield envelope.record("account.deactivated", by="administrator", **where, reason=spec.account.state)
