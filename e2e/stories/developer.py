"""A developer's machine with the `acme` library (PyPI), the one inside certbot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import acme.client
import acme.jws
import acme.messages
import pytest
from acme.challenges import HTTP01
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from josepy import jwa, jwk
from josepy.interfaces import JSONDeSerializable

from e2e.load.keys import b64url, certificate_key, certificate_request
from e2e.stories.story import Credential, Story
from e2e.support.dns import Addresses

Client = Any
"""An acme.client.ClientV2. Its types allow None for optional members, which our server always sends."""
HERE = Addresses("127.0.0.1")
"""The address of the installation's http-01 server."""


def elliptic(curve: ec.EllipticCurve) -> Callable[[], jwk.JWK]:
    """A generator of keys on a curve."""
    return lambda: jwk.JWKEC(key=ec.generate_private_key(curve))


def of_rsa() -> jwk.JWK:
    """An RSA key."""
    return jwk.JWKRSA(key=rsa.generate_private_key(65537, 2048))


@dataclass(frozen=True)
class Payload(JSONDeSerializable):
    """A payload without a class in the library."""

    members: dict[str, Any]

    def to_partial_json(self) -> dict[str, Any]:
        """The unchanged members."""
        return self.members

    @classmethod
    def from_json(cls, jobj: Any) -> Payload:
        """The unchanged members."""
        return cls(dict(jobj))


@dataclass
class Developer:
    """Creates clients for one directory, which only trust the CA of the server."""

    story: Story
    trust: Path
    networks: list[acme.client.ClientNetwork] = field(default_factory=list)

    def client(self, key: jwk.JWK | None = None, algorithm: jwa.JWASignature = jwa.ES256) -> Client:
        """A client with the directory, but without an account."""
        trust: Any = str(self.trust)  # requests accepts a path
        network = acme.client.ClientNetwork(
            key or elliptic(ec.SECP256R1())(), alg=algorithm, verify_ssl=trust, user_agent="stories"
        )
        self.networks.append(network)
        directory = acme.client.ClientV2.get_directory(self.story.enrollment.directory_url, network)
        return acme.client.ClientV2(directory, network)

    def registered(self, credential: Credential, *, email: str | None = None, **options: Any) -> Client:
        """A client with an account."""
        client = self.client(**options)
        client.new_account(registration(client, credential, email=email))
        return client

    def again(self, client: Client) -> Client:
        """The same client with a freshly read directory."""
        renewed = self.client(client.net.key, client.net.alg)
        renewed.net.account = client.net.account
        return renewed

    def obtain(self, client: Client, *labels: str) -> tuple[Any, list[str]]:
        """Obtain a certificate for names with these labels; the valid order and the names."""
        names = [self.story.name(label, HERE) for label in labels]
        order = client.new_order(pem_request(names))
        self.answer(client, order)
        return client.poll_and_finalize(order), names

    def answer(self, client: Client, order: Any) -> None:
        """Publish and respond to the http-01 challenges of an order."""
        for authorization in order.authorizations:
            self.prove(client, authorization)

    def prove(self, client: Client, authorization: Any) -> None:
        """Publish and respond to the http-01 challenge of an authorization."""
        (body,) = (each for each in authorization.body.challenges if isinstance(each.chall, HTTP01))
        thumbprint = b64url(client.net.key.thumbprint())
        self.story.installation.answerer.add(body.chall.encode("token"), thumbprint)
        client.answer_challenge(body, body.response(client.net.key))

    def close(self) -> None:
        """Close all connections."""
        for each in self.networks:
            each.session.close()


def registration(client: Client, credential: Credential, *, mac: str = "HS256", **members: Any) -> Any:
    """The newAccount payload for a credential."""
    binding = acme.messages.ExternalAccountBinding.from_data(
        account_public_key=client.net.key.public_key(),
        kid=credential.kid,
        hmac_key=credential.secret,
        directory=client.directory,
        hmac_alg=mac,
    )
    return acme.messages.NewRegistration.from_data(
        external_account_binding=binding, terms_of_service_agreed=True, **members
    )


def key_change(client: Client, key: jwk.JWK, algorithm: jwa.JWASignature = jwa.ES256, **members: Any) -> Payload:
    """The inner JWS of a key change, signed by the new key."""
    payload = {"account": client.net.account.uri, "oldKey": client.net.key.public_key().to_json(), **members}
    inner = acme.jws.JWS.sign(
        Payload(payload).json_dumps().encode(), key=key, alg=algorithm, nonce=None, url=client.directory["keyChange"]
    )
    signature = inner.signature
    return Payload(
        {
            "protected": b64url(signature.protected.encode()),
            "payload": b64url(inner.payload),
            "signature": b64url(signature.signature),
        }
    )


def orders_of(client: Client) -> list[str]:
    """Fetch all pages of the orders list."""
    url, found = client._post_as_get(client.net.account.uri).json()["orders"], []
    while url:
        response = client._post_as_get(url)
        found += response.json()["orders"]
        url = next(iter(client._get_links(response, "next")), None)
    return found


def pem_request(names: list[str]) -> bytes:
    """A CSR for a new key, in PEM."""
    der = certificate_request(names, certificate_key())
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)


@contextmanager
def refusal(code: str) -> Iterator[Any]:
    """Expect a problem document of this type."""
    with pytest.raises(acme.messages.Error) as caught:
        yield caught
    assert caught.value.code == code
