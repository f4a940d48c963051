"""Which Events follow from what happens: on the profile, on the credential, on the order.

People look where their own object is. An Event on a profile has no names and no clients, since tenants share it; one
on an EABCredential or an ACMEOrder says what the client was told. No Event follows from an issuance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from acme_server.audit.record import Decision
from acme_server.problems import ProblemType, Refused
from acme_server.state.event_recorder import EventRecorder, Note
from kms.contract import READY
from kms.resources.credentials import EABCredential
from kms.resources.kinds import CREDENTIALS, ORDERS, PROFILES, Kind
from kms.resources.meta import Key, Resource, condition
from kms.resources.orders import ACMEOrder
from kms.resources.profiles import CertificateProfile

_POLICY = frozenset(
    {ProblemType.REJECTED_IDENTIFIER, ProblemType.BAD_CSR, ProblemType.CAA, ProblemType.INVALID_PROFILE}
)
"""Refusals that the owner of the profile decides by its rules."""
_OF_CLIENT = frozenset({ProblemType.MALFORMED, ProblemType.BAD_NONCE, ProblemType.BAD_SIGNATURE_ALGORITHM})
"""Mistakes of a client, which nobody else can correct."""
_REASONS: Mapping[Decision, tuple[str, str]] = MappingProxyType(
    {
        "account.refused": ("AccountRefused", "Register"),
        "order.refused": ("OrderRefused", "Order"),
        "authorization.refused": ("OrderRefused", "Order"),
        "challenge.refused": ("OrderRefused", "Order"),
        "certificate.refused": ("CertificateRefused", "Finalize"),
    }
)
"""Reason and action by what was refused; for anything else there is no Event."""
_ISSUER = frozenset({"IssuerFailed", "IssuerTimeout", "CertificateRejected"})
"""Reasons of orders that ended because of their CA."""
_QUIET = frozenset({"Expired", "AccountDeactivated"})
"""Ends of orders that nobody has to repair."""


class Notices:
    """Records Events. `find_profile` and `find_credential` find what this replica knows, by namespace and name."""

    def __init__(
        self,
        events: EventRecorder,
        *,
        find_profile: Callable[[str, str], CertificateProfile | None],
        find_credential: Callable[[str, str], EABCredential | None],
    ) -> None:
        self._events = events
        self._find_profile = find_profile
        self._find_credential = find_credential

    def on_refused(self, decision: Decision, refused: Refused, *, profile: Key, credential: Key | None) -> None:
        """A request of a client, of that credential if it has proven to have one, was refused."""
        if decision not in _REASONS or refused.type in _OF_CLIENT:
            return
        reason, action = _REASONS[decision]
        owner = self._find_credential(*credential) if credential is not None else None
        if owner is not None:
            self._record(CREDENTIALS, owner, reason, action, refused.detail, key=refused.type.value)
        resource = self._find_profile(*profile)
        if resource is not None and refused.type in _POLICY:
            text = f"A request was refused by the rules of this profile ({refused.type.value})."
            self._record(PROFILES, resource, "RefusedByPolicy", action, text, key=refused.type.value)

    def on_wrong_secret(self, credential: EABCredential) -> None:
        """A client has the key identifier of the credential, but not its HMAC key."""
        text = "A client used the key identifier of this credential with another HMAC key."
        self._record(CREDENTIALS, credential, "WrongSecret", "Register", text)

    def on_issuer_failure(self, profile: Key, why: str) -> None:
        """The CA of the profile did not sign; `why` is for administrators."""
        resource = self._find_profile(*profile)
        if resource is not None:
            text = f"The issuing CA did not sign a certificate: {why}"
            self._record(PROFILES, resource, "IssuerFailed", "Issue", text)

    def on_order(self, before: ACMEOrder | None, after: ACMEOrder) -> None:
        """An order was written: if it has failed, its Event says why."""
        if before is None or not (after.status.state == "invalid" != before.status.state):
            return
        ready = condition(after.status.conditions, READY)
        error = after.status.error
        if ready is None or error is None or ready.reason in _QUIET:
            return
        given_up = any(each.state == "deactivated" for each in after.status.authorizations)
        if not given_up:
            self._record(ORDERS, after, ready.reason, "Fail", error.detail)
        if ready.reason in _ISSUER:
            # The CA's own words may have names; they are in a condition of the order.
            self.on_issuer_failure(after.profile_key, f"{ready.reason}; conditions of the order have its words")

    def _record(
        self,
        kind: Kind[Any],
        regarding: Resource,
        reason: str,
        action: str,
        text: str,
        *,
        key: str = "",
    ) -> None:
        self._events.record(Note(kind=kind, regarding=regarding, reason=reason, action=action, text=text, key=key))
