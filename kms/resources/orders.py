"""ACMEOrder: an order of an ACME account with its authorizations and challenges (RFC 8555, 7.1.3 to 7.1.5).

`spec` never changes, `status` holds the state machine. Only the server writes them. A new order has no authorizations
in its status yet; `with_authorizations` adds them.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from kms.resources.meta import GROUP, Condition, Key, LocalRef, ObjectMeta, Struct, Time

ACCOUNT = f"{GROUP}/account"
"""On an ACMEOrder: the name of its account, so that an account's orders can be listed."""

_TOKEN_BYTES = 24
"""A multiple of three: no padding."""

OrderState = Literal["pending", "ready", "processing", "valid", "invalid"]
OPEN_STATES: frozenset[OrderState] = frozenset({"pending", "ready", "processing"})
"""The states that an order can still leave."""
AuthorizationState = Literal["pending", "valid", "invalid", "deactivated", "expired", "revoked"]
ChallengeState = Literal["pending", "processing", "valid", "invalid"]
ChallengeType = Literal["http-01", "dns-01", "tls-alpn-01"]


class Identifier(Struct, frozen=True, kw_only=True):
    """An identifier of an order (RFC 8555, 9.7.7); a wildcard keeps its `*.` here."""

    type: Literal["dns", "ip"]
    value: str


class Token(Struct, frozen=True, kw_only=True):
    """The token of one challenge, in orders of earlier versions. `authorization` is the position of its identifier."""

    authorization: int
    type: ChallengeType
    token: str


class Authorized(Struct, frozen=True, kw_only=True):
    """A proof from before the order, for the identifier at the position `authorization`.

    It is the authorization at `position` of the account's earlier order `order`. Without these two, it is the account's
    credential, which the profile accepts instead of a proof (ownershipValidation: Skipped).
    """

    authorization: int
    order: str | None = None
    position: int | None = None
    type: ChallengeType | None = None
    validated: Time
    expires: Time

    def __post_init__(self) -> None:
        """Raise ValueError for a proof of an earlier order that does not say which one it is there, or the reverse."""
        if (self.order is None) is not (self.position is None):
            raise ValueError("position must be set if and only if order is set")


class StoredProblem(Struct, frozen=True, kw_only=True):
    """A problem, as in a problem document; `type` is the last part of the URN (`unauthorized`)."""

    type: str
    detail: str
    subproblems: tuple[StoredSubProblem, ...] = ()


class StoredSubProblem(Struct, frozen=True, kw_only=True):
    """The problem of one identifier (RFC 8555, 6.7.1)."""

    type: str
    detail: str
    identifier: Identifier | None = None


class Challenge(Struct, frozen=True, kw_only=True):
    """One way to prove control. `attempt` names the replica that validates and its start; it is informative only.

    `caa_checked_at` is the time of the CAA check of that validation; None: there was none.
    """

    type: ChallengeType
    state: ChallengeState = "pending"
    validated: Time | None = None
    caa_checked_at: Time | None = msgspec.field(default=None, name="caaCheckedAt")
    error: StoredProblem | None = None
    started: Time | None = None
    attempt: str | None = None


_UNTRIED: Mapping[ChallengeType, Challenge] = MappingProxyType(
    {
        "http-01": Challenge(type="http-01"),
        "dns-01": Challenge(type="dns-01"),
        "tls-alpn-01": Challenge(type="tls-alpn-01"),
    }
)
"""Challenges that nobody has tried: they are alike in all orders."""


class Authorization(Struct, frozen=True, kw_only=True):
    """The account's proof for one identifier; `identifier` is the base name where `wildcard` is set."""

    identifier: Identifier
    state: AuthorizationState = "pending"
    expires: Time
    wildcard: bool = False
    challenges: tuple[Challenge, ...] = ()


class Revocation(Struct, frozen=True, kw_only=True):
    """When and why the certificate was revoked (RFC 5280, 5.3.1).

    `propagated` is when the CA confirmed that, if it is external; None: it has not, or is not told.
    """

    time: Time
    reason: str
    propagated: Time | None = None


AuthorityType = Literal["CertManager", "Signer", "Vault"]
"""How an external CA is asked."""


class AskedAuthority(Struct, frozen=True, kw_only=True):
    """The CertificateAuthority that was asked for the certificate, if it is external."""

    name: str
    type: AuthorityType


class Claim(Struct, frozen=True, kw_only=True):
    """The process that is asking the CA, and since when."""

    replica: str
    time: Time


class Issuance(Struct, frozen=True, kw_only=True):
    """How far the CA was asked. `request` is the name of the object that asks it, where there is one.

    The attempt begins at `not_before`. Its certificate must end by `not_after`: an earlier one would have outlived the
    CA.
    """

    attempt: int
    request: str | None = None
    claim: Claim | None = None
    not_before: Time | None = None
    not_after: Time | None = None


class OrderSpec(Struct, frozen=True, kw_only=True):
    """The request of the client, the tokens of its challenges, and earlier proofs. The server never changes it.

    `names` is for people: the names in one text. `client_namespace` is the namespace of the clients of the account's
    EABCredential; proofs of one are not reused for another. `profile` is the name of an order profile, and
    `contents_ref` the CertificateProfile whose certificates, policy and CA that name stood for when the order was
    created.
    With `preauthorization` it is not an order for clients: it holds an authorization that newAuthz has created.
    `challenges` are the types that were offered, and `token_key` is what their tokens are derived from: 300 tokens
    would take 60 kB of etcd. `tokens` are those of orders that an earlier version has created.
    """

    account_ref: LocalRef
    profile_ref: LocalRef
    identifiers: tuple[Identifier, ...]
    names: str | None = None
    expires: Time
    not_before: Time | None = None
    not_after: Time | None = None
    replaces: str | None = None
    client_namespace: str | None = None
    profile: str | None = None
    contents_ref: LocalRef | None = None
    preauthorization: bool = False
    challenges: tuple[ChallengeType, ...] = ()
    token_key: str | None = None
    tokens: tuple[Token, ...] = ()
    authorized: tuple[Authorized, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what no server writes: each rule in CEL would cost the API server more than this."""
        count = len(self.identifiers)
        about: tuple[Token | Authorized, ...] = (*self.tokens, *self.authorized)
        for each in about:
            if each.authorization >= count:
                raise ValueError("each token and each proof must be for one of the identifiers")
        if self.preauthorization and count != 1:
            raise ValueError("an authorization before any order is for exactly one identifier")
        if self.contents_ref is not None and self.profile is None:
            raise ValueError("contentsRef must be set only together with profile")


class OrderStatus(Struct, frozen=True, kw_only=True):
    """The state machine. `request` (CSR, DER), `accepted` and `issuance` are kept only while an order is processing.

    `authority` is the CA that was asked; None for one that signs at once.

    `certificate` is PEM: the certificate alone if `chain_ref` names the CertificateChain with those above it, else the
    whole chain (acme_server.state.certificate_chains puts both together).

    The serial number, the key identifier of the CA that signed, and the SHA-256 digest of the SubjectPublicKeyInfo are
    in hexadecimal. `left_out` is what the CSR asked for and the certificate does not contain, in words for people.
    """

    state: OrderState = "pending"
    authorizations: tuple[Authorization, ...] = ()
    csr_digest: str | None = None
    request: bytes | None = None
    accepted: Time | None = None
    authority: AskedAuthority | None = None
    issuance: Issuance | None = None
    certificate: str | None = None
    chain_ref: LocalRef | None = None
    serial_number: str | None = None
    authority_key_id: str | None = msgspec.field(default=None, name="authorityKeyID")
    public_key_digest: str | None = None
    issued_at: Time | None = None
    not_before: Time | None = None
    not_after: Time | None = None
    left_out: tuple[str, ...] = ()
    revocation: Revocation | None = None
    error: StoredProblem | None = None
    conditions: tuple[Condition, ...] = ()


class ACMEOrder(Struct, frozen=True, kw_only=True):
    """`acmeord`: an ACME order."""

    metadata: ObjectMeta
    spec: OrderSpec
    status: OrderStatus = OrderStatus()

    @property
    def profile_key(self) -> Key:
        """(namespace, name) of the profile that it was ordered from."""
        return self.metadata.namespace, self.spec.profile_ref.name

    @property
    def was_changed(self) -> bool:
        """Whether somebody has changed the spec since the order was created: the API server counts that."""
        return self.metadata.generation > 1

    @property
    def tenant(self) -> str:
        """The namespace of the clients if it is not the profile's, else "".

        Such clients are a tenant of the profile, and share what its namespace may use with other tenants.
        """
        clients = self.spec.client_namespace
        return clients if clients is not None and clients != self.metadata.namespace else ""


def challenge_types(identifier: Identifier, offered: tuple[ChallengeType, ...]) -> tuple[ChallengeType, ...]:
    """The offered types that can prove the identifier: for a wildcard only dns-01, for an address all but dns-01."""
    if identifier.type == "ip":
        return tuple(each for each in offered if each != "dns-01")
    if identifier.value.startswith("*."):
        return tuple(each for each in offered if each == "dns-01")
    return offered


def token_of(spec: OrderSpec, position: int, type_: str) -> str | None:
    """The token of that type's challenge for the identifier at `position`; None: there is no such challenge.

    Derived tokens have 192 bits (RFC 8555, 8.1 requires 128).
    """
    if type_ not in _types_with_token(spec, position):
        return None
    if spec.token_key is None:
        wanted = position, type_
        return next(each.token for each in spec.tokens if (each.authorization, each.type) == wanted)
    mac = hmac.digest(spec.token_key.encode(), f"{position}/{type_}".encode(), "sha256")
    return base64.urlsafe_b64encode(mac[:_TOKEN_BYTES]).decode()


def _types_with_token(spec: OrderSpec, position: int) -> tuple[ChallengeType, ...]:
    """The types of the challenges for the identifier at `position`.

    A name that an earlier order has proven has none; one that is taken without proof shows one challenge.
    """
    if spec.token_key is None:
        return tuple(each.type for each in spec.tokens if each.authorization == position)
    for proof in spec.authorized:
        if proof.authorization == position:
            return () if proof.order is not None or proof.type is None else (proof.type,)
    return challenge_types(spec.identifiers[position], spec.challenges)


def authorization_of(spec: OrderSpec, position: int) -> Authorization:
    """The authorization for the identifier at `position`: valid if it was proven before, else pending.

    A pending one has a challenge for each token, a valid one the challenge that proved it.
    """
    identifier = spec.identifiers[position]
    wildcard = _is_wildcard(identifier)
    base = msgspec.structs.replace(identifier, value=identifier.value.removeprefix("*.")) if wildcard else identifier
    for proof in spec.authorized:
        if proof.authorization == position:
            valid = (Challenge(type=proof.type, state="valid", validated=proof.validated),) if proof.type else ()
            return Authorization(
                identifier=base, state="valid", expires=proof.expires, wildcard=wildcard, challenges=valid
            )
    return Authorization(
        identifier=base, expires=spec.expires, wildcard=wildcard, challenges=_pending_challenges(spec, position)
    )


def is_for(authorization: Authorization, identifier: Identifier) -> bool:
    """Whether the authorization in a status is the one for that identifier of the spec."""
    wildcard = _is_wildcard(identifier)
    base = identifier.value.removeprefix("*.") if wildcard else identifier.value
    own = authorization.identifier
    return (own.type, own.value, authorization.wildcard) == (identifier.type, base, wildcard)


def has_all_authorizations(order: ACMEOrder) -> bool:
    """Whether the status has exactly one authorization for each identifier, in their order."""
    identifiers, known = order.spec.identifiers, order.status.authorizations
    return len(known) == len(identifiers) and all(map(is_for, known, identifiers))


def challenge_of(order: ACMEOrder, position: int, type_: str) -> Challenge | None:
    """The challenge of that type for the identifier at `position`, if the order has it.

    Orders do not store challenges that were never tried once others have decided: those are pending.
    """
    for each in (*order.status.authorizations[position].challenges, *_pending_challenges(order.spec, position)):
        if each.type == type_:
            return each
    return None


def _pending_challenges(spec: OrderSpec, position: int) -> tuple[Challenge, ...]:
    return tuple(map(_UNTRIED.__getitem__, _types_with_token(spec, position)))


def _is_wildcard(identifier: Identifier) -> bool:
    return identifier.type == "dns" and identifier.value.startswith("*.")


def with_authorizations(order: ACMEOrder) -> ACMEOrder:
    """The order with all its authorizations and challenges, of which it stores only those that say something.

    A new order stores none of its authorizations, and an order that has failed no challenge that was not tried. An
    order whose authorizations were all proven before is ready at once.
    """
    known = order.status.authorizations
    if not known:
        return _with_all(order)
    bare = {position for position, each in enumerate(known) if each.state == "pending" and not each.challenges}
    if not bare:
        return order
    authorizations = tuple(
        msgspec.structs.replace(each, challenges=_pending_challenges(order.spec, position))
        if position in bare
        else each
        for position, each in enumerate(known)
    )
    return msgspec.structs.replace(order, status=msgspec.structs.replace(order.status, authorizations=authorizations))


def _with_all(order: ACMEOrder) -> ACMEOrder:
    """The order with the authorizations that follow from its spec."""
    spec, state = order.spec, order.status.state
    authorizations = tuple([authorization_of(spec, position) for position in range(len(spec.identifiers))])
    if state == "pending" and spec.authorized and all(each.state == "valid" for each in authorizations):
        state = "ready"
    status = msgspec.structs.replace(order.status, state=state, authorizations=authorizations)
    return msgspec.structs.replace(order, status=status)
