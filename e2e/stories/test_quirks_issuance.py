"""What real clients do with orders, requests and certificates that no specification says. See test_quirks.py."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from e2e.load.client import Client, Order, Refused, challenge_of, http01_of
from e2e.load.keys import AccountKey, ExternalAccount, b64url, certificate_key, certificate_request
from e2e.stories.replay import HERE, names_of, order_of_address, ready_address, ready_order, validated
from e2e.stories.story import SITE_ADDRESS, Story
from e2e.support import tlsalpn01
from e2e.support.http01 import Text

pytestmark = pytest.mark.usefixtures("all_challenges")


def request_with(*names: x509.GeneralName, common_name: str | None = None) -> bytes:
    """A certificate request as some clients make it, in DER."""
    subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(certificate_key(), hashes.SHA256()).public_bytes(Encoding.DER)


def address(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


async def leaf_of(client: Client, order: Order, request: bytes) -> x509.Certificate:
    return (await client.certificate(await client.finalize(order, request))).leaf


@pytest.mark.parametrize("who", ["cert-manager", "Traefik", "acme.sh", "esnet acme-proxy"])
async def test_gives_up_on_orders_that_are_processing_so_finalize_answers_with_the_certificate(
    client: Client, story: Story, who: str
) -> None:
    order = await ready_order(client, story, "at-once")
    order = await client.finalize(order, certificate_request(names_of(order), certificate_key()))
    assert order.status == "valid", who
    assert order.body["certificate"], who


async def test_cert_manager_wants_a_certificate_that_is_no_ca_and_a_chain_without_the_root(
    client: Client, story: Story
) -> None:
    order = await ready_order(client, story, "no-ca")
    order = await client.finalize(order, certificate_request(names_of(order), certificate_key()))
    certificate = await client.certificate(order)
    constraints = certificate.leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (False, None)


async def test_cert_manager_is_stuck_when_an_order_is_forgotten_so_a_failed_one_can_still_be_read(
    client: Client, story: Story
) -> None:
    order = await client.new_order([f"failed.{story.namespace}.test"])
    challenge = http01_of(await client.authorization(order.authorizations[0]))
    story.installation.answerer.behave(challenge["token"], Text("something else"))
    await client.respond(challenge)
    await validated(client, order.authorizations[0])
    order = await client.order(order.url)
    assert order.status == "invalid"
    assert "something other than the key authorization" in order.body["error"]["detail"]


async def test_proxmox_and_firewalls_get_their_nonces_by_get(client: Client) -> None:
    nonce = await client.exchange.new_nonce("GET")
    assert client.account_url is not None
    answer = await client.exchange.signed(client.account_url, None, key=client.key, kid=client.account_url, nonce=nonce)
    assert answer.status == 200


async def test_win_acme_asks_for_the_certificate_before_there_is_one(client: Client, story: Story) -> None:
    order = await client.new_order([f"early.{story.namespace}.test"])
    assert "certificate" not in order.body
    with pytest.raises(Refused) as refused:
        await client.post("certificate", f"{order.url}/certificate")
    assert refused.value.answer.status in {403, 404}
    assert refused.value.answer.problem["detail"]


@pytest.mark.parametrize(
    "dates",
    [
        {"notBefore": timedelta(days=-2)},
        {"notBefore": timedelta(days=400)},
        {"notBefore": timedelta(days=2), "notAfter": timedelta(days=1)},
    ],
    ids=["in the past", "long from now", "after the end"],
)
async def test_win_acme_sends_days_as_the_beginning_of_validity(
    client: Client, story: Story, dates: dict[str, timedelta]
) -> None:
    wanted = {name: (datetime.now(UTC) + shift).isoformat() for name, shift in dates.items()}
    with pytest.raises(Refused) as refused:
        await client.new_order([f"odd.{story.namespace}.test"], **wanted)
    assert refused.value.answer.problem_type == "malformed"
    assert "notBefore" in refused.value.answer.problem["detail"]


async def test_nginx_acme_shows_no_more_than_the_detail_so_that_says_what_is_wrong_with_a_request(
    client: Client, story: Story
) -> None:
    order = await ready_order(client, story, "wrong-request")
    with pytest.raises(Refused) as refused:
        await client.finalize(order, certificate_request(["another.test"], certificate_key()))
    problem = refused.value.answer.problem
    assert (refused.value.answer.problem_type, "another.test" in problem["detail"]) == ("badCSR", True)
    assert (await client.order(order.url)).status == "ready"


async def test_node_acme_client_wants_no_common_name_that_it_has_not_asked_for(client: Client, story: Story) -> None:
    order = await ready_order(client, story, "no-common-name")
    leaf = await leaf_of(client, order, certificate_request(names_of(order), certificate_key()))
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []


async def test_webmin_shows_a_certificate_without_a_common_name_as_invalid_and_may_ask_for_one(
    client: Client, story: Story
) -> None:
    order = await ready_order(client, story, "common-name-too")
    (name,) = names_of(order)
    leaf = await leaf_of(client, order, request_with(x509.DNSName(name), common_name=name))
    assert [each.value for each in leaf.subject] == [name]


@pytest.mark.parametrize("who", ["Vault", "acme.sh", "acme2certifier"])
async def test_breaks_without_extended_key_usage_so_every_certificate_is_for_servers(
    client: Client, story: Story, who: str
) -> None:
    order = await ready_order(client, story, "usage")
    leaf = await leaf_of(client, order, certificate_request(names_of(order), certificate_key()))
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usages, who


async def test_certbot_shows_a_certificate_as_revoked_only_by_ocsp_so_what_there_is_stands_in_it(
    client: Client, story: Story
) -> None:
    order = await ready_order(client, story, "crl")
    leaf = await leaf_of(client, order, certificate_request(names_of(order), certificate_key()))
    (point,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    assert point.full_name[0].value.endswith(".crl")
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [each.access_method._name for each in access] == ["caIssuers"]


@pytest.mark.parametrize("who", ["lego", "certbot"])
async def test_shows_that_a_certificate_was_revoked_before_by_the_type_of_the_problem(
    client: Client, story: Story, who: str
) -> None:
    order = await ready_order(client, story, "revoked")
    leaf = await leaf_of(client, order, certificate_request(names_of(order), certificate_key()))
    url = (await client.exchange.directory())["revokeCert"]
    payload = {"certificate": b64url(leaf.public_bytes(Encoding.DER))}
    answer = await client.post("revoke", url, payload)
    assert (answer.status, answer.body) == (200, b"")
    with pytest.raises(Refused) as refused:
        await client.post("revoke", url, payload)
    assert (refused.value.answer.status, refused.value.answer.problem_type) == (400, "alreadyRevoked"), who


async def test_acme_sh_rolls_its_key_over_to_one_that_is_taken(
    client: Client, external_account: ExternalAccount
) -> None:
    other = Client(client.exchange, AccountKey.generate())
    await other.register(external_account=external_account)
    url = (await client.exchange.directory())["keyChange"]
    with pytest.raises(Refused) as refused:
        await client.post("key-change", url, rollover(client, other.key, url))
    assert (refused.value.answer.status, refused.value.answer.location) == (409, other.account_url)


async def test_acme_sh_rolls_its_key_over(client: Client) -> None:
    key, url = AccountKey.generate(), (await client.exchange.directory())["keyChange"]
    answer = await client.post("key-change", url, rollover(client, key, url))
    assert answer.status == 200
    changed = Client(client.exchange, key)
    assert (await changed.register(only_return_existing=True)).location == client.account_url


def rollover(client: Client, key: AccountKey, url: str) -> bytes:
    """The inner JWS (RFC 8555, 7.3.5)."""
    return key.jws(
        {"alg": "ES256", "jwk": key.jwk, "url": url}, {"account": client.account_url, "oldKey": client.key.jwk}
    )


@pytest.mark.parametrize("who", ["acme-ca-server", "cert-manager"])
async def test_asks_when_to_renew(client: Client, story: Story, who: str) -> None:
    certificate = await client.obtain([f"when.{story.namespace}.test"], story.installation.answerer.add)
    window = (await client.renewal_info(certificate))["suggestedWindow"]
    assert certificate.leaf.not_valid_after_utc > datetime.fromisoformat(window["end"]), who


async def test_caddy_takes_no_window_that_does_not_hold_a_whole_second(client: Client, story: Story) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=90)).replace(microsecond=0).isoformat()
    order = await ready_order(client, story, "narrow", notAfter=end)
    order = await client.finalize(order, certificate_request(names_of(order), certificate_key()))
    window = (await client.renewal_info(await client.certificate(order)))["suggestedWindow"]
    start, end_of_window = (int(datetime.fromisoformat(window[each]).timestamp()) for each in ("start", "end"))
    assert end_of_window - start > 1


@pytest.mark.parametrize("who", ["lego", "win-acme"])
@pytest.mark.parametrize("common_name", [HERE, None], ids=["in the common name too", "empty common name"])
async def test_sends_a_request_for_an_address(client: Client, story: Story, common_name: str | None, who: str) -> None:
    order = await ready_address(client, story)
    leaf = await leaf_of(client, order, request_with(address(HERE), common_name=common_name))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [address(HERE)], who


async def test_acme_sh_puts_an_address_among_the_dns_names_of_its_request(client: Client, story: Story) -> None:
    order = await ready_address(client, story)
    with pytest.raises(Refused) as refused:
        await client.finalize(order, request_with(x509.DNSName(HERE)))
    assert refused.value.answer.problem_type == "badCSR"
    assert HERE in refused.value.answer.problem["detail"]


async def test_ualpn_answers_for_an_address_by_its_reverse_name(client: Client, story: Story) -> None:
    order = await order_of_address(client, SITE_ADDRESS)
    challenge = challenge_of(await client.authorization(order.authorizations[0]), "tls-alpn-01")
    answerer = tlsalpn01.Answerer()
    answerer.add(SITE_ADDRESS, f"{challenge['token']}.{client.key.thumbprint}")
    with tlsalpn01.serving(answerer, host=SITE_ADDRESS, port=story.tls_alpn01_port):
        await client.respond(challenge)
        await validated(client, order.authorizations[0])
    assert list(answerer.asked) == ["4.0.0.127.in-addr.arpa"]
    assert (await client.order(order.url)).status == "ready"


@pytest.mark.parametrize("spelled", ["127.0.0.01", "127.1", "::0001", "0:0:0:0:0:0:0:1", "127.0.0.0/8", "[::1]"])
async def test_appliances_spell_addresses_in_other_ways(client: Client, spelled: str) -> None:
    with pytest.raises(Refused) as refused:
        await order_of_address(client, spelled)
    assert refused.value.answer.problem_type in {"malformed", "rejectedIdentifier"}
    assert spelled in refused.value.answer.problem["detail"]


@pytest.mark.parametrize("mac", ["HS256", "HS384", "HS512"])
async def test_acmetk_could_not_bind_an_elliptic_key(
    client: Client, external_account: ExternalAccount, mac: str
) -> None:
    url = (await client.exchange.directory())["newAccount"]
    key = AccountKey.generate()
    binding = external_account.binding(key, url, algorithm=mac)
    answer = await client.exchange.signed(url, {"externalAccountBinding": binding}, key=key)
    assert answer.status == 201
