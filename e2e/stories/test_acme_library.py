"""A developer writes a client with the `acme` library (PyPI), the one inside certbot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import acme.errors
import acme.messages
import pytest
from acme.challenges import HTTP01
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from josepy import jwa, jwk

from e2e.stories.developer import HERE, Developer, elliptic, of_rsa, pem_request, refusal, registration
from e2e.stories.story import Credential


@pytest.mark.requirement("S15", "M92")
@pytest.mark.parametrize(
    ("make_key", "algorithm", "mac"),
    [
        (elliptic(ec.SECP256R1()), jwa.ES256, "HS256"),
        (elliptic(ec.SECP384R1()), jwa.ES384, "HS384"),
        (elliptic(ec.SECP521R1()), jwa.ES512, "HS512"),
        (of_rsa, jwa.RS256, "HS256"),
    ],
    ids=["ES256", "ES384", "ES512", "RS256"],
)
def test_the_whole_way_goes_with_account_keys_and_bindings_of_every_kind(
    developer: Developer,
    credential: Credential,
    make_key: Callable[[], jwk.JWK],
    algorithm: jwa.JWASignature,
    mac: str,
) -> None:
    client = developer.client(make_key(), algorithm)
    account = client.new_account(registration(client, credential, mac=mac))
    assert account.body.status == "valid"
    order, names = developer.obtain(client, f"one-{algorithm.name.lower()}", "two", "three")
    leaf = x509.load_pem_x509_certificate(order.fullchain_pem.encode())
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(found.get_values_for_type(x509.DNSName)) == sorted(names)


@pytest.mark.requirement("M123", "M126")
def test_the_chain_has_two_certificates_ends_with_a_newline_and_there_is_no_other_one(
    developer: Developer, credential: Credential
) -> None:
    client = developer.registered(credential)
    names = [developer.story.name("chain", HERE)]
    order = client.new_order(pem_request(names))
    developer.answer(client, order)
    order = client.poll_and_finalize(order)
    response = client._post_as_get(order.body.certificate)
    assert response.text.endswith("-----END CERTIFICATE-----\n")
    assert len(x509.load_pem_x509_certificates(response.content)) >= 2
    assert client._get_links(response, "alternate") == []


def test_an_account_is_found_by_its_key_without_the_binding(developer: Developer, credential: Credential) -> None:
    client = developer.registered(credential, email="first@example.com")
    known = client.net.account
    stranger = developer.client(client.net.key)
    found = stranger.query_registration(acme.messages.RegistrationResource(body=acme.messages.Registration()))
    assert (found.uri, found.body.contact) == (known.uri, ("mailto:first@example.com",))
    stranger.net.account = None
    with pytest.raises(acme.errors.ConflictError) as conflict:
        stranger.new_account(acme.messages.NewRegistration(terms_of_service_agreed=True))
    assert conflict.value.location == known.uri


def test_a_key_without_an_account_is_told_so_rather_than_asked_for_a_binding(developer: Developer) -> None:
    client = developer.client()
    with refusal("accountDoesNotExist"):
        client.query_registration(acme.messages.RegistrationResource(body=acme.messages.Registration()))


def test_contacts_are_replaced_in_the_process_that_opened_the_account(
    developer: Developer, credential: Credential
) -> None:
    client = developer.registered(credential, email="first@example.com")
    update = client.net.account.body.update(contact=("mailto:second@example.com", "mailto:third@example.com"))
    updated = client.update_registration(client.net.account, update)
    assert updated.body.contact == ("mailto:second@example.com", "mailto:third@example.com")


@pytest.mark.requirement("M103")
def test_a_deactivated_account_may_do_nothing_more(developer: Developer, credential: Credential) -> None:
    client = developer.registered(credential)
    name = developer.story.name("deactivated", HERE)
    assert client.deactivate_registration(client.net.account).body.status == "deactivated"
    with refusal("unauthorized") as caught:
        client.new_order(pem_request([name]))
    assert "deactivated" in caught.value.detail
    client.net.account = None
    with refusal("unauthorized"):
        client.new_account(registration(client, credential))


def test_a_nonce_that_is_no_good_costs_one_more_request(developer: Developer, credential: Credential) -> None:
    client = developer.registered(credential)
    used = client.net._nonces.copy()
    client.new_order(pem_request([developer.story.name("nonce-one", HERE)]))
    client.net._nonces = {b"never-issued-by-anybody"}
    order = client.new_order(pem_request([developer.story.name("nonce-two", HERE)]))
    assert order.body.status == acme.messages.STATUS_PENDING
    client.net._nonces = used
    assert client.new_order(pem_request([developer.story.name("nonce-three", HERE)])).uri != order.uri


@pytest.mark.requirement("M143")
def test_a_failed_challenge_is_an_error_that_carries_the_reason(developer: Developer, credential: Credential) -> None:
    client = developer.registered(credential)
    order = client.new_order(pem_request([developer.story.name("wrong-answer", HERE)]))
    (authorization,) = order.authorizations
    (body,) = (each for each in authorization.body.challenges if isinstance(each.chall, HTTP01))
    developer.story.installation.answerer.add(body.chall.encode("token"), "somebody-elses-thumbprint")
    client.answer_challenge(body, body.response(client.net.key))
    with pytest.raises(acme.errors.ValidationError) as failed:
        client.poll_and_finalize(order)
    invalid: Any
    (invalid,) = failed.value.failed_authzrs
    (challenge,) = (each for each in invalid.body.challenges if each.error)
    assert challenge.error.code == "unauthorized"
    assert "something other than the key authorization" in challenge.error.detail


@pytest.mark.requirement("S46")
def test_a_refused_order_names_every_identifier_that_met_a_rule(developer: Developer, credential: Credential) -> None:
    client = developer.registered(credential)
    good = developer.story.name("good", HERE)
    with refusal("rejectedIdentifier") as caught:
        client.new_order(pem_request(["a.example.org", good, "b.example.org"]))
    assert [each.identifier.value for each in caught.value.subproblems] == ["a.example.org", "b.example.org"]
