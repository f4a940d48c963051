"""A strict ACME client: it checks every answer against RFC 8555 before it uses it.

`Client` is one account on one directory. Each method sends one request, with retries, and returns the answer; `obtain`
runs all steps from newOrder to the certificate. A problem document raises `Refused`, a violation of RFC 8555 raises
`ProtocolError`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from e2e.load.exchange import Answer, Exchange, ProtocolError
from e2e.load.keys import AccountKey, ExternalAccount, b64url, certificate_id, certificate_key, certificate_request
from e2e.load.solvers import HTTP01, ByHTTP, Publish, Solver

Observe = Callable[[str, float], None]
"""Called with the name of a step and its duration in seconds, including retries."""
Sleep = Callable[[float], Awaitable[None]]

PATIENCE = 30.0
"""Time limit of a validation or an issuance, in seconds."""
TRIES = 5
"""Maximum attempts of a request that is answered with 503."""
URN = "urn:ietf:params:acme:error:"
BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
PEM_CHAIN = "application/pem-certificate-chain"


class Refused(Exception):
    """The server answered with a problem document; `answer.problem_type` is its type."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.url}: {answer.status} {answer.problem_type}: {answer.problem.get('detail')}")
        self.answer = answer


class OrderFailed(Exception):
    """An order or an authorization became invalid; the text has the server's reason."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the server last returned it (RFC 8555, 7.1.3)."""

    url: str
    body: Mapping[str, Any]

    @property
    def status(self) -> str:
        """pending, ready, processing, valid or invalid."""
        return str(self.body["status"])

    @property
    def authorizations(self) -> list[str]:
        """The URLs of its authorizations."""
        return list(self.body["authorizations"])


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate of an order: the PEM chain from the server, and its first certificate."""

    order: Order
    chain: str
    leaf: x509.Certificate


def ignore(_step: str, _seconds: float) -> None:
    """Observe nothing."""


def expect(condition: object, answer: Answer, rule: str) -> None:
    """Raise ProtocolError with the violated rule unless the condition holds."""
    if not condition:
        raise ProtocolError(f"{answer.url} ({answer.status}): {rule}")


def check_answer(answer: Answer) -> Answer:
    """Check the rules for every answer to a POST (RFC 8555, 6.5 and 6.7), and return the answer.

    Raises:
        ProtocolError: if the answer violates one.
    """
    if answer.status < 400:
        expect(answer.nonce, answer, "no Replay-Nonce (M32)")
    else:
        expect(answer.content_type == "application/problem+json", answer, "an error without problem document (M43)")
        problem = answer.problem
        expect(str(problem.get("type", "")).startswith(URN), answer, f"unregistered type {problem.get('type')} (M44)")
        expect(problem.get("status", answer.status) == answer.status, answer, "another status in the document (M43)")
    expect(answer.nonce is None or BASE64URL.fullmatch(answer.nonce), answer, "Replay-Nonce is not base64url (M37)")
    return answer


class Client:
    """One account. `counts` has the number of retries after `badNonce` and `503`; `observe` gets every duration."""

    def __init__(
        self,
        exchange: Exchange,
        key: AccountKey,
        *,
        account_url: str | None = None,
        observe: Observe = ignore,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.exchange = exchange
        self.key = key
        self.account_url = account_url
        self.counts: Counter[str] = Counter()
        self.observe = observe
        self._sleep = sleep

    async def post(
        self, step: str, url: str, payload: Mapping[str, Any] | bytes | None = None, *, by_jwk: bool = False
    ) -> Answer:
        """Send a signed request and check the answer. Retry once after badNonce, and after 503 as Retry-After says.

        Raises:
            Refused: if the server answers with a problem; after retries, the last one.
            ProtocolError: if the answer violates RFC 8555.
        """
        begun = time.perf_counter()
        fresh, tries = True, TRIES
        while True:
            kid = None if by_jwk else self.account_url
            answer = await self.exchange.signed(url, payload, key=self.key, kid=kid)
            if answer.status == 503 and tries > 1:
                tries -= 1
                self.counts["503"] += 1
                await self._sleep(retry_after(answer))
            elif answer.status == 400 and fresh and answer.problem_type == "badNonce":
                fresh = False
                self.counts["badNonce"] += 1
            else:
                break
        self.observe(step, time.perf_counter() - begun)
        if not answer.links("index"):
            self.exchange.breach(answer, 'no Link rel="index" (M51)')
        if check_answer(answer).status >= 400:
            raise Refused(answer)
        return answer

    async def register(
        self,
        *,
        contact: Sequence[str] = (),
        external_account: ExternalAccount | None = None,
        only_return_existing: bool = False,
    ) -> Answer:
        """Open an account, or find the existing account of the key (RFC 8555, 7.3)."""
        url = (await self.exchange.directory())["newAccount"]
        payload: dict[str, Any] = {"termsOfServiceAgreed": True}
        if contact:
            payload["contact"] = list(contact)
        if only_return_existing:
            payload["onlyReturnExisting"] = True
        if external_account is not None:
            payload["externalAccountBinding"] = external_account.binding(self.key, url)
        answer = await self.post("new-account", url, payload, by_jwk=True)
        expect(answer.status in {200, 201}, answer, "newAccount answers 201 or 200 (M75, M76)")
        expect(answer.location, answer, "no Location of the account (M75)")
        expect(answer.json().get("status") == "valid", answer, "the account is not valid")
        self.account_url = answer.location
        return answer

    async def new_nonce(self) -> None:
        """Fetch a nonce and keep it, as a new client does."""
        begun = time.perf_counter()
        self.exchange.nonces.append(await self.exchange.new_nonce("GET"))
        self.observe("new-nonce", time.perf_counter() - begun)

    async def new_order(self, names: Sequence[str], **members: Any) -> Order:
        """Order a certificate for these DNS names; `members` are added to the payload (RFC 8555, 7.4)."""
        identifiers = [{"type": "dns", "value": name} for name in names]
        url = (await self.exchange.directory())["newOrder"]
        answer = await self.post("new-order", url, {"identifiers": identifiers, **members})
        expect(answer.status == 201, answer, "newOrder answers 201 (M106)")
        order = self._parsed(answer, answer.location)
        shown = {(each["type"], each["value"]) for each in order.body["identifiers"]}
        expect(shown == {("dns", name) for name in names}, answer, f"other identifiers than ordered: {shown} (M107)")
        expect(order.status in {"pending", "ready"}, answer, f"a new order is {order.status} (M68)")
        return order

    async def authorization(self, url: str, *, step: str = "authorization") -> Mapping[str, Any]:
        """Fetch an authorization (RFC 8555, 7.1.4)."""
        answer = await self.post(step, url)
        body = answer.json()
        expect(answer.status == 200, answer, "an authorization is answered 200")
        expect({"identifier", "status", "challenges"} <= body.keys(), answer, "an authorization lacks members (M61)")
        return dict(body)

    async def respond(self, challenge: Mapping[str, Any]) -> Mapping[str, Any]:
        """Tell the server that the challenge is ready to be validated (RFC 8555, 7.5.1)."""
        answer = await self.post("challenge", challenge["url"], {})
        expect(answer.status == 200, answer, "a challenge response is answered 200 (M129)")
        if not answer.links("up"):
            self.exchange.breach(answer, 'no Link rel="up" to the authorization (M129)')
        body = answer.json()
        expect(body.get("url") == challenge["url"], answer, "another challenge than the one answered")
        return dict(body)

    async def order(self, url: str, *, step: str = "order") -> Order:
        """Fetch an order."""
        answer = await self.post(step, url)
        expect(answer.status == 200, answer, "an order is answered 200")
        return self._parsed(answer, url)

    async def finalize(self, order: Order, request: bytes) -> Order:
        """Send the CSR in DER (RFC 8555, 7.4)."""
        answer = await self.post("finalize", order.body["finalize"], {"csr": b64url(request)})
        expect(answer.status == 200, answer, "finalize answers 200")
        expect(answer.location in {None, order.url}, answer, "finalize names another order in Location (M106)")
        return self._parsed(answer, order.url)

    async def certificate(self, order: Order) -> Certificate:
        """Download the certificate of a valid order (RFC 8555, 7.4.2)."""
        answer = await self.post("certificate", order.body["certificate"])
        expect(answer.status == 200, answer, "a certificate is answered 200")
        expect(answer.content_type == PEM_CHAIN, answer, f"a certificate served as {answer.content_type} (M123)")
        leaf = x509.load_pem_x509_certificate(answer.body)
        return Certificate(order, answer.body.decode("ascii"), leaf)

    async def renewal_info(self, certificate: Certificate) -> Mapping[str, Any]:
        """Fetch the renewal information of a certificate (RFC 9773, 4.2)."""
        begun = time.perf_counter()
        base = (await self.exchange.directory())["renewalInfo"]
        answer = await self.exchange.request("GET", f"{base}/{certificate_id(certificate.leaf)}")
        self.observe("renewal-info", time.perf_counter() - begun)
        expect(answer.status == 200, answer, "renewal information is answered 200 (ARI-M3)")
        expect(answer.headers.get("Retry-After", "").isdecimal(), answer, "no Retry-After in seconds (ARI-M4)")
        window = answer.json()["suggestedWindow"]
        start, end = (datetime.fromisoformat(window[each]) for each in ("start", "end"))
        expect(start < end, answer, "the window ends before it starts (ARI-M3)")
        return dict(answer.json())

    async def obtain(self, names: Sequence[str], publish: Publish) -> Certificate:
        """Obtain a certificate for `names` by http-01. Raises the errors of `obtain_by`."""
        return await self.obtain_by(ByHTTP(publish), names)

    async def renew(self, certificate: Certificate, solver: Solver, names: Sequence[str]) -> Certificate:
        """Replace a certificate of this account (RFC 9773, 5). Raises the errors of `obtain_by`."""
        return await self.obtain_by(solver, names, replaces=certificate_id(certificate.leaf))

    async def obtain_by(self, solver: Solver, names: Sequence[str], **members: Any) -> Certificate:
        """Obtain a certificate for `names` and a new key; `members` are added to the newOrder payload.

        Raises:
            OrderFailed: if an authorization or the order becomes invalid.
            TimeoutError: if validation or issuance takes longer than PATIENCE.
        """
        key = certificate_key()
        async with asyncio.timeout(PATIENCE * 2):
            order = await self.new_order(names, **members)
            if order.status == "pending":
                order = await self._prove(order, solver)
            order = await self.finalize(order, certificate_request(names, key))
            order = await self._wait_for_order(order, until="valid")
            certificate = await self.certificate(order)
        check_names(certificate, names)
        if certificate.leaf.public_key() != key.public_key():
            raise ProtocolError(f"{order.url}: the certificate has another key than the CSR")
        return certificate

    def _parsed(self, answer: Answer, url: str | None) -> Order:
        order = parse_order(answer, url)
        if "certificate" in order.body and order.status != "valid":
            # Pebble sometimes shows it a moment too early.
            self.exchange.breach(answer, "certificate is for valid orders (M60)")
        return order

    async def _prove(self, order: Order, solver: Solver) -> Order:
        for url in order.authorizations:
            await self._answer(url, solver)
        for url in order.authorizations:
            await self._wait_for_authorization(url)
        return await self._wait_for_order(order, until="ready")

    async def _answer(self, url: str, solver: Solver) -> None:
        authorization = await self.authorization(url)
        if authorization["status"] == "valid":
            return
        challenge = challenge_of(authorization, solver.type)
        solver.publish(authorization["identifier"]["value"], challenge["token"], self.key.thumbprint)
        await self.respond(challenge)

    async def _wait_for_authorization(self, url: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while (authorization := await self.authorization(url, step="authorization (poll)"))["status"] == "pending":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} is still pending after {PATIENCE:.0f} s")
            await self._sleep(0.05)
        if authorization["status"] != "valid":
            raise OrderFailed(f"{url} is {authorization['status']}: {errors_of(authorization)}")

    async def _wait_for_order(self, order: Order, *, until: str) -> Order:
        """Poll the order, at least once, until its status is `until`."""
        deadline = time.monotonic() + PATIENCE
        while (now := await self.order(order.url, step=f"order ({until})")).status in {"pending", "processing"}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{order.url} is still {now.status} after {PATIENCE:.0f} s")
            await self._sleep(0.05)
        if now.status != until:
            raise OrderFailed(f"{order.url} is {now.status}, not {until}: {now.body.get('error')}")
        return now


def retry_after(answer: Answer) -> float:
    """The seconds in the Retry-After header.

    Raises:
        ProtocolError: if it is not a whole number of seconds.
    """
    text = answer.headers.get("Retry-After", "")
    expect(text.isdecimal(), answer, f"503 with Retry-After {text!r}")
    return float(text)


def parse_order(answer: Answer, url: str | None) -> Order:
    """Parse and check the order in an answer (RFC 8555, 7.1.3).

    Raises:
        ProtocolError: if it is not a valid order.
    """
    expect(url, answer, "no Location of the order (M106)")
    body = answer.json()
    missing = {"status", "identifiers", "authorizations", "finalize"} - body.keys()
    expect(not missing, answer, f"an order without {sorted(missing)} (M56)")
    expect("certificate" in body or body["status"] != "valid", answer, "a valid order without certificate (M56)")
    expect("error" in body or body["status"] != "invalid", answer, "an invalid order without error (M60)")
    return Order(str(url), body)


def challenge_of(authorization: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    """The challenge of this type in an authorization.

    Raises:
        OrderFailed: if the server offers none.
    """
    for challenge in authorization["challenges"]:
        if challenge["type"] == type_:
            return dict(challenge)
    raise OrderFailed(f"no {type_} challenge for {authorization['identifier']['value']}")


def http01_of(authorization: Mapping[str, Any]) -> Mapping[str, Any]:
    """The http-01 challenge of an authorization. Raises OrderFailed if there is none."""
    return challenge_of(authorization, HTTP01)


def errors_of(authorization: Mapping[str, Any]) -> str:
    """The server's errors of the failed challenges in an authorization."""
    found = [challenge["error"].get("detail", "") for challenge in authorization["challenges"] if "error" in challenge]
    return "; ".join(found) or "no error given"


def check_names(certificate: Certificate, names: Sequence[str]) -> None:
    """Check that the certificate has exactly these names.

    Raises:
        ProtocolError: if it is not.
    """
    extension = certificate.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    found = set(extension.value.get_values_for_type(x509.DNSName))
    if found != set(names):
        raise ProtocolError(f"{certificate.order.url}: ordered {sorted(names)}, issued {sorted(found)}")
