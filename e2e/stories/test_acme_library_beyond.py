"""A developer does with the `acme` library what certbot's command never asks for."""

from __future__ import annotations

from datetime import datetime, timedelta

import acme.errors
import acme.messages
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256, RS256

from e2e.load.keys import certificate_id
from e2e.stories.developer import (
    HERE,
    Client,
    Developer,
    Payload,
    elliptic,
    key_change,
    of_rsa,
    orders_of,
    pem_request,
    refusal,
)
from e2e.stories.story import Credential, Story

PATIENCE = timedelta(seconds=30)
new_key = elliptic(ec.SECP256R1())


@pytest.fixture
def client(developer: Developer, credential: Credential) -> Client:
    return developer.registered(credential, email="team@example.com")


def deadline() -> datetime:
    """A deadline in the library's format: local time without a zone."""
    return datetime.now() + PATIENCE  # noqa: DTZ005


def leaf_of(order: Client) -> x509.Certificate:
    return x509.load_pem_x509_certificate(order.fullchain_pem.encode())


@pytest.mark.requirement("M95", "M99", "M100")
def test_a_changed_key_speaks_for_the_account_and_the_old_one_does_not_any_more(
    developer: Developer, client: Client
) -> None:
    account, old = client.net.account, client.net.key
    pending = client.new_order(pem_request([developer.story.name("before-change", HERE)]))
    key = new_key()
    assert client._post(client.directory["keyChange"], key_change(client, key)).status_code == 200
    with refusal("malformed") as caught:
        client._post_as_get(account.uri)
    assert "signature" in caught.value.detail
    client.net.key = key
    assert client.query_registration(account).body.contact == ("mailto:team@example.com",)
    developer.answer(client, pending)
    assert client.poll_and_finalize(pending).body.status == acme.messages.STATUS_VALID
    former = developer.client(old)
    with refusal("accountDoesNotExist"):
        former.query_registration(acme.messages.RegistrationResource(body=acme.messages.Registration()))


@pytest.mark.requirement("M98")
def test_the_key_of_another_account_is_refused_with_the_url_of_that_account(
    developer: Developer, credential: Credential, client: Client
) -> None:
    other = developer.registered(credential)
    response = client.net._send_request(
        "POST",
        client.directory["keyChange"],
        data=client.net._wrap_in_jws(
            key_change(client, other.net.key),
            client.net._get_nonce(client.directory["keyChange"], client.directory["newNonce"]),
            client.directory["keyChange"],
        ),
        headers={"Content-Type": "application/jose+json"},
    )
    assert (response.status_code, response.headers["Location"]) == (409, other.net.account.uri)


@pytest.mark.requirement("M97")
def test_a_key_change_that_names_another_old_key_is_refused(client: Client) -> None:
    wrong = key_change(client, new_key(), oldKey=new_key().public_key().to_json())
    with refusal("malformed") as caught:
        client._post(client.directory["keyChange"], wrong)
    assert "oldKey" in caught.value.detail


@pytest.mark.requirement("M101")
def test_a_key_change_that_is_signed_by_another_key_than_it_names_is_refused(client: Client) -> None:
    signed = key_change(client, new_key()).members
    foreign = key_change(client, new_key()).members
    with refusal("malformed"):
        client._post(client.directory["keyChange"], Payload({**signed, "signature": foreign["signature"]}))


@pytest.mark.requirement("M54", "M55")
def test_the_list_of_orders_has_all_of_them_over_its_pages_and_none_of_anybody_else(
    developer: Developer, credential: Credential, client: Client
) -> None:
    orders = {client.new_order(pem_request([developer.story.name(f"listed-{at}", HERE)])).uri for at in range(3)}
    other = developer.registered(credential)
    other.new_order(pem_request([developer.story.name("listed-other", HERE)]))
    listed = orders_of(client)
    assert set(listed) == orders
    assert len(listed) == len(orders)


@pytest.mark.requirement("M134", "M135")
def test_a_deactivated_authorization_ends_its_order_also_when_it_was_valid(
    developer: Developer, client: Client
) -> None:
    order = client.new_order(pem_request([developer.story.name("given-back", HERE)]))
    developer.answer(client, order)
    order = client.poll_authorizations(order, deadline())
    (authorization,) = order.authorizations
    gone = client.deactivate_authorization(authorization)
    assert gone.body.status == acme.messages.STATUS_DEACTIVATED
    with refusal("orderNotReady"):
        client.begin_finalization(order)


@pytest.mark.requirement("M120", "M122")
def test_a_name_may_be_proved_before_there_is_an_order(developer: Developer, story: Story, client: Client) -> None:
    story.profile(enrollment={"acme": {"preAuthorization": "Enabled"}})
    client = developer.again(client)
    name = story.name("proved-before", HERE)
    identifier = {"type": "dns", "value": name}
    response = client._post(client.directory["newAuthz"], Payload({"identifier": identifier}))
    assert (response.status_code, response.json()["status"]) == (201, "pending")
    authorization = client._authzr_from_response(response)
    developer.prove(client, authorization)
    while client.poll(authorization)[0].body.status == acme.messages.STATUS_PENDING:
        continue  # the server delays each answer
    order = client.new_order(pem_request([name]))
    assert order.body.status == acme.messages.STATUS_READY
    assert [each.uri for each in order.authorizations] == [authorization.uri]
    assert client.finalize_order(order, deadline()).body.status == acme.messages.STATUS_VALID


@pytest.mark.requirement("S59", "M71")
def test_a_name_that_was_proved_is_not_to_be_proved_again(developer: Developer, client: Client) -> None:
    first, (name,) = developer.obtain(client, "proved-once")
    again = client.new_order(pem_request([name]))
    assert again.body.status == acme.messages.STATUS_READY
    assert [each.uri for each in again.authorizations] == [each.uri for each in first.authorizations]
    again = client.finalize_order(again, deadline())
    assert leaf_of(again).serial_number != leaf_of(first).serial_number


@pytest.mark.requirement("ARI-M8", "ARI-M9")
def test_an_order_says_which_certificate_it_replaces_and_only_one_may(developer: Developer, client: Client) -> None:
    first, (name,) = developer.obtain(client, "replaced")
    identifier = certificate_id(leaf_of(first))
    payload = Payload({"identifiers": [{"type": "dns", "value": name}], "replaces": identifier})
    response = client._post(client.directory["newOrder"], payload)
    assert (response.status_code, response.json()["replaces"]) == (201, identifier)
    with pytest.raises(acme.errors.ConflictError):  # the library raises it for every 409
        client._post(client.directory["newOrder"], payload)


@pytest.mark.requirement("ARI-M2", "ARI-M3", "ARI-M4")
def test_the_library_reads_when_to_renew(developer: Developer, client: Client) -> None:
    order, _ = developer.obtain(client, "when")
    leaf = leaf_of(order)
    when, _again = client.renewal_time(order.fullchain_pem.encode())
    assert leaf.not_valid_before_utc < when < leaf.not_valid_after_utc


@pytest.mark.requirement("M136", "M139")
def test_the_library_revokes_once_and_is_told_so_the_second_time(developer: Developer, client: Client) -> None:
    order, _ = developer.obtain(client, "revoked")
    client.revoke(leaf_of(order), 4)
    with refusal("alreadyRevoked"):
        client.revoke(leaf_of(order), 4)


@pytest.mark.requirement("M140")
def test_a_reason_that_is_not_for_subscribers_is_refused(developer: Developer, client: Client) -> None:
    order, _ = developer.obtain(client, "wrong-reason")
    with refusal("badRevocationReason"):
        client.revoke(leaf_of(order), 2)


def test_an_account_with_an_rsa_key_changes_to_an_elliptic_one(developer: Developer, credential: Credential) -> None:
    client = developer.registered(credential, key=of_rsa(), algorithm=RS256)
    key = new_key()
    client._post(client.directory["keyChange"], key_change(client, key))
    client.net.key, client.net.alg = key, ES256
    assert client.query_registration(client.net.account).body.status == "valid"
