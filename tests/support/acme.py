"""An ACME server without a cluster, and a client that can be as wrong as a test wants: for tests of the HTTP edge.

The stand-ins keep accounts and orders in dictionaries and decide nothing; what they are called with is recorded.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, cast

import msgspec
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from acme_server.accounts.eab_credentials import Binding, MacKey
from acme_server.accounts.key_rollover import KeyInUse
from acme_server.api.application import acme_application
from acme_server.api.authentication import AccountHolder, KeyHolder
from acme_server.api.payloads import AccountUpdate, NewAccount, NewAuthorization, NewOrder
from acme_server.api.readiness import Readiness
from acme_server.certificates.crl import Document
from acme_server.certificates.renewal_info import RenewalInfo
from acme_server.certificates.renewal_window import Window
from acme_server.jose.jwk import AccountKey, account_key
from acme_server.metrics import Metrics
from acme_server.nonces import Nonce, Nonces
from acme_server.problems import NotFound, Unavailable
from acme_server.profiles import Profile
from acme_server.urls import URLs
from kms.clock import system_entropy
from kms.resources import ACMEAccount, ACMEOrder, CertificateProfile, EABCredential
from kms.resources.accounts import AccountSpec, AccountStatus, CurrentKey
from kms.resources.authorities import AuthoritySpec, CertificateAuthority
from kms.resources.core import Secret
from kms.resources.credentials import CredentialSpec
from kms.resources.meta import LocalRef, NamespacedRef, ObjectMeta
from kms.resources.orders import Identifier, OrderSpec, Token, opened
from kms.resources.profiles import AcmeEnrollment, Enrollment, ProfileSpec

EXTERNAL_URL = "https://acme.example.com"
DIRECTORY = "/acme/pki/web"
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
MAC_KEY = bytes(range(32))
KEY_ID = "web-1"


def b64(value: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


def _minimal(value: int) -> str:
    return _number(value, (value.bit_length() + 7) // 8)


_EC = {"ES256": (ec.SECP256R1(), SHA256(), 32, "P-256"), "ES384": (ec.SECP384R1(), SHA384(), 48, "P-384")}
_EC["ES512"] = (ec.SECP521R1(), SHA512(), 66, "P-521")
_RSA: Mapping[str, HashAlgorithm] = {"RS256": SHA256(), "RS384": SHA384(), "RS512": SHA512(), "PS256": SHA256()}

ALGORITHMS = (*_EC, *_RSA, "EdDSA")


class ClientKey:
    """A key pair of a client; `algorithm` is what it signs with unless told otherwise."""

    def __init__(self, algorithm: str = "ES256", private: Any = None) -> None:
        self.algorithm = algorithm
        self.private = private or _generated(algorithm)
        self.jwk = _jwk(self.private, algorithm)
        self.public: AccountKey = account_key(self.jwk)

    def sign(self, message: bytes) -> bytes:
        """The signature in the form that JWS wants."""
        if self.algorithm in _EC:
            _, hash_, size, _ = _EC[self.algorithm]
            r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hash_)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if self.algorithm == "EdDSA":
            return cast("bytes", self.private.sign(message))
        hash_ = _RSA[self.algorithm]
        pad = padding.PSS(padding.MGF1(hash_), 32) if self.algorithm == "PS256" else padding.PKCS1v15()
        return cast("bytes", self.private.sign(message, pad, hash_))


def _generated(algorithm: str) -> Any:
    if algorithm in _EC:
        return ec.generate_private_key(_EC[algorithm][0])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def _jwk(private: Any, algorithm: str) -> dict[str, Any]:
    public = private.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        numbers = public.public_numbers()
        _, _, size, curve = _EC[algorithm]
        return {"kty": "EC", "crv": curve, "x": _number(numbers.x, size), "y": _number(numbers.y, size)}
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
    rsa_numbers = public.public_numbers()
    return {"kty": "RSA", "n": _minimal(rsa_numbers.n), "e": _minimal(rsa_numbers.e)}


def flattened(protected: Any, payload: bytes, sign: Any) -> dict[str, Any]:
    """A flattened JWS with that protected header (an object, or the bytes themselves)."""
    header = b64(protected if isinstance(protected, bytes) else json.dumps(protected).encode())
    body = b64(payload)
    return {"protected": header, "payload": body, "signature": b64(sign(f"{header}.{body}".encode()))}


def signed(key: ClientKey, payload: bytes, **header: Any) -> bytes:
    """The body of a request. A header member that is None is left out."""
    members = {"alg": key.algorithm} | header
    return json.dumps(flattened({k: v for k, v in members.items() if v is not None}, payload, key.sign)).encode()


def binding(
    key: ClientKey, *, url: str, mac_key: bytes = MAC_KEY, payload: bytes | None = None, **header: Any
) -> dict[str, Any]:
    """An externalAccountBinding. A header member that is None is left out."""
    members = {"alg": "HS256", "kid": KEY_ID, "url": url} | header
    digest = {"HS384": "sha384", "HS512": "sha512"}.get(members["alg"], "sha256")
    body = json.dumps(key.jwk).encode() if payload is None else payload
    present = {k: v for k, v in members.items() if v is not None}
    return flattened(present, body, lambda message: hmac.digest(mac_key, message, digest))


def profile(name: str = "web", **acme: Any) -> Profile:
    """A profile `pki/<name>`, ready. Policy and CA are for the services, which the stand-ins are not."""
    enrollment = AcmeEnrollment(**acme)
    spec = ProfileSpec(
        issuer_ref=LocalRef(name="ca"), policy_ref=LocalRef(name="policy"), enrollment=Enrollment(acme=enrollment)
    )
    return Profile(
        resource=CertificateProfile(metadata=ObjectMeta(name=name, namespace="pki", uid=f"uid-{name}"), spec=spec),
        policy=cast("Any", None),
        authority=CertificateAuthority(metadata=ObjectMeta(name="ca", namespace="pki"), spec=AuthoritySpec()),
        acme=enrollment,
        duration=timedelta(days=30),
        order_lifetime=timedelta(days=1),
        authorization_lifetime=timedelta(days=1),
    )


def account_id(profile_: str, thumbprint: str) -> str:
    """52 characters that follow from profile and key."""
    digest = sha256(f"pki\0{profile_}\0{thumbprint}".encode()).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


class Profiles:
    """Knows the profiles that it is given; `unavailable` makes it not ready."""

    def __init__(self, *profiles: Profile) -> None:
        self.known = {each.key: each for each in profiles}
        self.unavailable = False

    def of(self, namespace: str, name: str) -> Profile:
        if self.unavailable:
            raise Unavailable("The server is still reading its configuration.", 3)
        try:
            return self.known[namespace, name]
        except KeyError:
            raise NotFound("There is no such profile.") from None

    def order_profiles(self, profile: Profile) -> Mapping[str, str]:
        return {each.name: each.description for each in profile.acme.profiles}

    def authority(self, profile: Profile, _: ACMEOrder) -> CertificateAuthority:
        return profile.authority


class Accounts:
    """Accounts in a dictionary by (profile, id)."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], ACMEAccount] = {}
        self.registered: list[Binding | None] = []
        self.lookups = 0

    async def find(self, profile: Profile, thumbprint: str) -> ACMEAccount | None:
        return self.known.get((profile.name, account_id(profile.name, thumbprint)))

    async def by_id(self, profile: Profile, account_id: str) -> ACMEAccount | None:
        self.lookups += 1
        return self.known.get((profile.name, account_id))

    async def register(
        self, profile: Profile, key: Any, wanted: NewAccount, binding: Binding | None
    ) -> tuple[ACMEAccount, bool]:
        self.registered.append(binding)
        if binding is None and profile.acme.external_account_binding == "Required":
            raise Refused(ProblemType.EXTERNAL_ACCOUNT_REQUIRED, "This profile needs an external account binding.")
        return self.put(profile.name, key, contact=wanted.contact), True

    async def current(self, account: ACMEAccount) -> ACMEAccount:
        return account

    async def rekeyed(self, account: ACMEAccount) -> ACMEAccount | None:  # noqa: ARG002
        return None

    async def agree(self, profile: Profile, account: ACMEAccount) -> ACMEAccount:  # noqa: ARG002
        return account

    async def change_key(self, profile: Profile, account: ACMEAccount, key: AccountKey, *, old: str) -> ACMEAccount:
        if (taken := await self.find(profile, key.thumbprint)) is not None:
            raise KeyInUse(taken)
        assert account.thumbprint == old
        changed = CurrentKey(jwk=key.jwk, thumbprint=key.thumbprint, changed_at=NOW)
        account = msgspec.structs.replace(account, status=msgspec.structs.replace(account.status, key=changed))
        self.known[profile.name, account.metadata.name] = account
        return account

    async def update(self, account: ACMEAccount, update: AccountUpdate) -> ACMEAccount:
        contact = account.status.contact if update.contact is None else update.contact
        state = update.status if update.status == "deactivated" else account.status.state
        status = msgspec.structs.replace(account.status, contact=contact, state=state)
        account = msgspec.structs.replace(account, status=status)
        self.known[account.spec.profile_ref.name, account.metadata.name] = account
        return account

    def put(self, profile: str, key: Any, *, state: Any = "valid", contact: tuple[str, ...] = ()) -> ACMEAccount:
        name = account_id(profile, key.thumbprint)
        account = ACMEAccount(
            metadata=ObjectMeta(name=name, namespace="pki"),
            spec=AccountSpec(profile_ref=LocalRef(name=profile), key=key.jwk, thumbprint=key.thumbprint),
            status=AccountStatus(state=state, contact=contact),
        )
        self.known[profile, name] = account
        return account


class Credentials:
    """One EAB credential, KEY_ID with MAC_KEY, for the profile `web`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def mac_key(self, profile: Profile, key_id: str) -> MacKey | None:
        self.asked.append(key_id)
        known = (profile.name, key_id) == ("web", KEY_ID)
        return MacKey(key_id, MAC_KEY, Secret(metadata=ObjectMeta())) if known else None

    async def binding(self, profile: Profile, key: MacKey) -> Binding | None:
        reference = NamespacedRef(name=profile.name, namespace="pki")
        meta = ObjectMeta(name="web", namespace="team", uid="uid-eab")
        return Binding(EABCredential(metadata=meta, spec=CredentialSpec(profile_ref=reference)), key.key_id)


class Orders:
    """Orders in a dictionary by id. `fresh` holds what only a live read shows."""

    def __init__(self) -> None:
        self.known: dict[str, ACMEOrder] = {}
        self.fresh: dict[str, ACMEOrder] = {}
        self.responded: list[tuple[str, int, str]] = []
        self.finalized: list[bytes] = []
        self.fails: Exception | None = None

    async def create(self, _: Profile, account: ACMEAccount, wanted: NewOrder) -> ACMEOrder:
        if self.fails:
            raise self.fails
        return self.put(account, [each.value for each in wanted.identifiers])

    async def get(self, profile: Profile, account: ACMEAccount, order_id: str, *, fresh: bool = False) -> ACMEOrder:
        order = (self.fresh.get(order_id) if fresh else None) or self.known.get(order_id)
        if order is None or (order.spec.account_ref.name, order.spec.profile_ref.name) != (
            account.metadata.name,
            profile.name,
        ):
            raise NotFound
        return order

    async def preauthorize(self, _: Profile, account: ACMEAccount, wanted: NewAuthorization) -> ACMEOrder:
        return self.put(account, [wanted.identifier.value], preauthorization=True)

    async def holding(self, profile: Profile, account: ACMEAccount, order_id: str, position: int) -> ACMEOrder:
        order = await self.get(profile, account, order_id)
        if position >= len(order.status.authorizations):
            raise NotFound
        return order

    async def settled(self, order: ACMEOrder, *, position: int | None = None) -> ACMEOrder:  # noqa: ARG002
        return order

    async def respond(self, order: ACMEOrder, position: int, type_: str) -> ACMEOrder:
        if all(each.type != type_ for each in order.status.authorizations[position].challenges):
            raise NotFound
        self.responded.append((order.metadata.name, position, type_))
        return self.change(order, position, challenge="processing")

    async def deactivate_authorization(self, order: ACMEOrder, position: int) -> ACMEOrder:
        return self.change(order, position, authorization="deactivated")

    async def finalize(self, _: Profile, __: ACMEAccount, order: ACMEOrder, csr_der: bytes) -> ACMEOrder:
        self.finalized.append(csr_der)
        return self.status(order, state="valid", certificate="-----BEGIN CERTIFICATE-----\n")

    async def page_of(self, account: ACMEAccount, cursor: str = "") -> tuple[Sequence[str], str]:
        names = [name for name, each in self.known.items() if each.spec.account_ref.name == account.metadata.name]
        first = int(cursor or "0")
        return names[first : first + 2], str(first + 2) if len(names) > first + 2 else ""

    def put(self, account: ACMEAccount, names: Sequence[str], *, preauthorization: bool = False) -> ACMEOrder:
        name = f"{len(self.known):26}".replace(" ", "a").translate(str.maketrans("0189", "bcde"))
        spec = OrderSpec(
            account_ref=LocalRef(name=account.metadata.name),
            profile_ref=account.spec.profile_ref,
            identifiers=tuple(Identifier(type="dns", value=each) for each in names),
            expires=NOW + timedelta(days=1),
            preauthorization=preauthorization,
            tokens=tuple(Token(authorization=i, type="http-01", token=f"token-{i}") for i in range(len(names))),
        )
        order = opened(ACMEOrder(metadata=ObjectMeta(name=name, namespace="pki"), spec=spec))
        self.known[name] = order
        return order

    def status(self, order: ACMEOrder, **status: Any) -> ACMEOrder:
        order = msgspec.structs.replace(order, status=msgspec.structs.replace(order.status, **status))
        self.known[order.metadata.name] = order
        return order

    def change(self, order: ACMEOrder, position: int, *, authorization: Any = None, challenge: Any = None) -> ACMEOrder:
        every = list(order.status.authorizations)
        old = every[position]
        challenges = tuple(msgspec.structs.replace(each, state=challenge or each.state) for each in old.challenges)
        every[position] = msgspec.structs.replace(old, state=authorization or old.state, challenges=challenges)
        return self.status(order, authorizations=tuple(every))


class Renewals:
    """Knows one certificate identifier, `known.certificate`."""

    def info(self, profile: Profile, certificate_id: str) -> RenewalInfo:
        if certificate_id != "known.certificate":
            raise NotFound("There is no such certificate.")
        start = NOW + (profile.duration * 2 / 3)
        return RenewalInfo(Window(start, start + timedelta(days=2)), timedelta(hours=6))


class Revocations:
    """Revokes whatever it is told to, and remembers it."""

    def __init__(self) -> None:
        self.revoked: list[tuple[AccountHolder | KeyHolder, bytes, int | None]] = []

    async def revoke(self, caller: AccountHolder | KeyHolder, der: bytes, reason: int | None) -> None:
        self.revoked.append((caller, der, reason))


class Publication:
    """Documents by (namespace, CA)."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], Document] = {}

    async def revocation_list(self, namespace: str, authority: str) -> Document:
        return self.certificate(namespace, authority)

    def certificate(self, namespace: str, authority: str) -> Document:
        try:
            return self.documents[namespace, authority]
        except KeyError:
            raise NotFound("There is no such CA.") from None


class Local:
    """Redeems the nonces of one server alone."""

    def __init__(self, nonces: Nonces) -> None:
        self.nonces = nonces

    async def redeem(self, nonce: Nonce) -> bool:
        return self.nonces.redeem(nonce)


@dataclass
class Edge:
    """A running server with everything that a test wants to look at, and a client of it."""

    http: TestClient[Any, Any]
    nonces: Nonces
    profiles: Profiles
    accounts: Accounts
    orders: Orders
    credentials: Credentials
    metrics: Metrics
    readiness: Readiness
    now: list[datetime]
    revocations: Revocations
    publication: Publication
    key: ClientKey = field(default_factory=ClientKey)

    def opened(self, key: ClientKey | None = None, profile: str = "web", state: Any = "valid") -> str:
        """An account that exists; its kid."""
        account = self.accounts.put(profile, (key or self.key).public, state=state)
        return URLs(EXTERNAL_URL).account(account)

    async def post(
        self, path: str, payload: Any = None, *, key: ClientKey | None = None, body: bytes | None = None, **header: Any
    ) -> ClientResponse:
        """POST to a path: signed for it, with a new nonce and a kid, unless the header says otherwise."""
        key = key or self.key
        if "kid" not in header and "jwk" not in header:
            header["kid"] = self.opened(key)
        header = {"nonce": self.nonces.issue() if self.nonces.ready else "none", "url": EXTERNAL_URL + path} | header
        data = b"" if payload is None else payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return await self.http.post(
            path,
            data=signed(key, data, **header) if body is None else body,
            headers={"Content-Type": "application/jose+json"},
        )


async def problem_of(response: ClientResponse) -> dict[str, Any]:
    """The problem document in an answer, with the short form of its type."""
    assert response.content_type == "application/problem+json", await response.text()
    document = cast("dict[str, Any]", await response.json(content_type=None))
    assert document["status"] == response.status
    return document | {"type": document["type"].removeprefix("urn:ietf:params:acme:error:")}


@asynccontextmanager
async def running_edge(*profiles: Profile) -> AsyncIterator[Edge]:
    """The HTTP edge over stand-ins; without arguments with the profiles `web` (EAB required) and `open` (optional)."""
    now = [NOW]
    nonces = Nonces(clock=lambda: now[0], entropy=system_entropy)
    nonces.use(b"n" * 32)
    found = Profiles(*(profiles or (profile(), profile("open", external_account_binding="Optional"))))
    accounts, orders, credentials = Accounts(), Orders(), Credentials()
    revocations, publication = Revocations(), Publication()
    metrics, readiness = Metrics(), Readiness()
    application = acme_application(
        urls=URLs(EXTERNAL_URL),
        nonces=nonces,
        redeemer=Local(nonces),
        profiles=found,
        accounts=accounts,
        credentials=credentials,
        orders=orders,
        renewals=Renewals(),
        revocations=revocations,
        publication=publication,
        metrics=metrics,
        readiness=readiness,
    )
    async with TestClient(TestServer(application)) as http:
        yield Edge(
            http, nonces, found, accounts, orders, credentials, metrics, readiness, now, revocations, publication
        )
