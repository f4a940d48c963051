"""What real clients do that no specification says, replayed request by request. Each test is named after the client.

Here are accounts, nonces and errors, and what was told first; test_quirks_issuance.py (I) has orders, requests and
certificates. Where the real client is run, its own story (S) tells it.

    quirk                                                       test, by a part of its name
    looks its account up without the binding                    asks_which_account_its_key_has
    sends new-order with a jwk after a failed lookup            cert_manager_sends_new_order_with_a_jwk
    leaves termsOfServiceAgreed out                             cert_manager_leaves_out_terms
    answers a challenge again, valid or processing              answers_a_challenge_again (two)
    gives up while an order is processing, or after 30 s        I gives_up_on_orders_that_are_processing
    notAfter; EAB secret is text; CA flags of certificates      cert_manager_asks_for_an_end, _reads_the_secret; I no_ca
    is stuck when an order was forgotten                        I cert_manager_is_stuck
    newline, up link, nonces; whole account, empty profile      certbot_wants_a_newline, certbot_sends_its_whole_account
    takes 200 with Location for a conflict; retries once        S test_acme_library
    cannot update an account that echoes the binding            S test_acme_library (contacts_are_replaced)
    payloads "" and {}; RSA accounts                            certbot_sends_an_empty_payload; S test_acme_library
    nonces by GET                                               I proxmox_and_firewalls
    address as a DNS name; in the common name                   lego_sends_an_ip_address; I sends_a_request_for
    address among the DNS names of a request                    I acme_sh_puts_an_address
    other spellings of addresses                                I appliances_spell_addresses
    asks for the certificate too early; odd validity            I win_acme (two); win_acme_asks_for_a_validity
    POST-as-GET on the account                                  mod_md_reads_its_account
    nonces from other workers; binding at each start            expects_a_new_nonce; nginx_acme_may_present
    shows only the detail of badCSR                             I nginx_acme_shows_no_more
    requests without a subject; names must be critical          sends_a_request_without_a_subject
    wants a common name, or none                                I webmin_shows, I node_acme_client_wants
    EC account keys with bindings of every kind                 I acmetk_could_not_bind; S test_acme_library
    follows what the documentation prints                       S test_documentation
    proxies that change Host and scheme                         a_proxy_in_front
    tokens and types of challenges                              uacme_lacme_and_aioacme
    polls the Location of finalize                              polls_what_finalize_says
    Retry-After in seconds; windows of two seconds              caddy_takes_retry_after; I caddy_takes_no_window
    never retries badNonce                                      dehydrated_never_sends
    opens its account at every start                            opens_its_account_at_every_start
    members that nobody asked for                               golang_sends_members
    name in the common name only; two keys for one name         common_name_only; mod_md_gets_an_ec
    errors without a body                                       ansible_parses_every_error
    alreadyRevoked; key in use is 409 with Location             I shows_that_a_certificate_was_revoked; I acme_sh_rolls
    revocation shown only by OCSP                               I certbot_shows_a_certificate
    missing extended key usage                                  I breaks_without_extended_key_usage
    asks when to renew                                          I asks_when_to_renew; S test_renewal
    reverse names of addresses                                  I ualpn_answers_for_an_address
    version of the request; subjects that nobody chose          S test_old_certbot, test_ruby; S test_openssl_requests
    blank after mailto; null as contact; zero time              S test_openssl_requests; S test_step
    CRLs for intermediates                                      S test_java
    weak account keys; Ed25519; unknown algorithms              node_acme_client_tries; a_modern_client; an_algorithm
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from e2e.load.client import Client, Refused, http01_of
from e2e.load.exchange import JOSE, Answer, Exchange
from e2e.load.keys import (
    AccountKey,
    ExternalAccount,
    b64url,
    certificate_key,
    certificate_request,
    encode_payload,
    flattened,
)
from e2e.stories.replay import names_of, new_account, ready_order, validated
from e2e.stories.story import Credential, Story
from e2e.support.http01 import Slow


@pytest.mark.requirement("M77")
@pytest.mark.parametrize("who", ["cert-manager", "ansible community.crypto"])
async def test_asks_which_account_its_key_has_without_the_binding(client: Client, who: str) -> None:
    found = await new_account(client.exchange, client.key, {"onlyReturnExisting": True})
    assert (found.status, found.location) == (200, client.account_url), who
    unknown = await new_account(client.exchange, AccountKey.generate(), {"onlyReturnExisting": True})
    assert (unknown.status, unknown.problem_type) == (400, "accountDoesNotExist"), who


@pytest.mark.requirement("M18")
async def test_cert_manager_sends_new_order_with_a_jwk_after_a_failed_lookup(exchange: Exchange, story: Story) -> None:
    order = {"identifiers": [{"type": "dns", "value": f"a.{story.namespace}.test"}]}
    answer = await exchange.signed((await exchange.directory())["newOrder"], order, key=AccountKey.generate())
    assert (answer.status, answer.problem_type) == (400, "malformed")
    assert "kid" in answer.problem["detail"]


async def test_cert_manager_leaves_out_terms_of_service_agreed(
    exchange: Exchange, external_account: ExternalAccount
) -> None:
    key, url = AccountKey.generate(), (await exchange.directory())["newAccount"]
    answer = await new_account(exchange, key, {"externalAccountBinding": external_account.binding(key, url)})
    assert answer.status == 201


@pytest.mark.parametrize("who", ["cert-manager", "@root/acme"])
async def test_answers_a_challenge_again_that_is_valid_already(client: Client, story: Story, who: str) -> None:
    order = await ready_order(client, story, "again")
    challenge = http01_of(await client.authorization(order.authorizations[0]))
    answer = await client.post("challenge", challenge["url"], {})
    assert (answer.status, answer.json()["status"]) == (200, "valid"), who


async def test_root_acme_answers_a_challenge_again_while_it_is_looked_at(client: Client, story: Story) -> None:
    order = await client.new_order([f"slow.{story.namespace}.test"])
    challenge = http01_of(await client.authorization(order.authorizations[0]))
    story.installation.answerer.behave(
        challenge["token"], Slow(f"{challenge['token']}.{client.key.thumbprint}", pause=0.02)
    )
    for _ in range(3):
        assert (await client.respond(challenge))["status"] in {"processing", "valid"}
    await validated(client, order.authorizations[0])
    assert (await client.order(order.url)).status == "ready"


@pytest.mark.requirement("C12")
async def test_cert_manager_asks_for_an_end_of_validity(client: Client, story: Story) -> None:
    end = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    order = await client.new_order([f"end.{story.namespace}.test"], notAfter=end.isoformat())
    assert datetime.fromisoformat(order.body["notAfter"]) == end


async def test_win_acme_asks_for_a_validity_that_makes_no_sense(client: Client, story: Story) -> None:
    past = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    with pytest.raises(Refused) as refused:
        await client.new_order([f"past.{story.namespace}.test"], notAfter=past)
    assert "notAfter" in refused.value.answer.problem["detail"]


@pytest.mark.requirement("M89")
async def test_cert_manager_reads_the_secret_as_base64url_without_padding_or_newline(credential: Credential) -> None:
    assert len(ExternalAccount.parse(credential.kid, credential.secret).mac_key) == 32
    assert credential.secret == b64url(ExternalAccount.parse("", credential.secret).mac_key)


async def test_certbot_wants_a_newline_at_the_end_an_up_link_and_a_nonce_with_every_answer(
    client: Client, story: Story
) -> None:
    order = await ready_order(client, story, "strict")  # respond() has looked for the link, checked() for the nonce
    order = await client.finalize(order, certificate_request(names_of(order), certificate_key()))
    certificate = await client.certificate(order)
    assert certificate.chain.endswith("-----END CERTIFICATE-----\n")
    assert len(x509.load_pem_x509_certificates(certificate.chain.encode())) >= 2


async def test_certbot_sends_its_whole_account_with_a_lookup_and_an_empty_profile_with_an_order(
    client: Client, story: Story
) -> None:
    body = {"onlyReturnExisting": True, "contact": ["mailto:other@example.com"], "status": "deactivated", "key": {}}
    answer = await new_account(client.exchange, client.key, body)
    assert (answer.status, answer.json()["status"]) == (200, "valid")
    assert "contact" not in answer.json() or answer.json()["contact"] == []
    order = await client.new_order([f"profile.{story.namespace}.test"], profile="")
    assert order.status == "pending"


async def test_certbot_sends_an_empty_payload_for_post_as_get_and_an_empty_object_to_a_challenge(
    client: Client, story: Story
) -> None:
    order = await client.new_order([f"empty.{story.namespace}.test"])
    assert (await client.post("order", order.url, b"")).status == 200
    with pytest.raises(Refused, match="malformed"):
        await client.post("order", order.url, {})


async def test_mod_md_reads_its_account_with_post_as_get(client: Client) -> None:
    assert client.account_url is not None
    answer = await client.post("account", client.account_url)
    assert (answer.status, answer.json()["status"]) == (200, "valid")


@pytest.mark.requirement("M35", "C5")
@pytest.mark.parametrize("who", ["dogtag", "lua-resty-acme"])
async def test_expects_a_new_nonce_with_the_refusal_of_the_old_one(client: Client, who: str) -> None:
    async def read_account(nonce: str) -> Answer:
        assert client.account_url is not None
        return await client.exchange.signed(
            client.account_url, None, key=client.key, kid=client.account_url, nonce=nonce
        )

    spent = await client.exchange.new_nonce("GET")
    assert (await read_account(spent)).status == 200
    answer = await read_account(spent)
    assert (answer.status, answer.problem_type) == (400, "badNonce"), who
    assert answer.nonce is not None
    assert (await read_account(answer.nonce)).status == 200


@pytest.mark.requirement("SEC29")
@pytest.mark.parametrize("who", ["Caddy", "certbot", "lego", "acme.sh", "Apple"])
async def test_sends_a_request_without_a_subject_and_gets_critical_names(
    client: Client, story: Story, who: str
) -> None:
    order = await ready_order(client, story, "subjectless")
    order = await client.finalize(order, certificate_request(names_of(order), certificate_key()))
    leaf = (await client.certificate(order)).leaf
    assert list(leaf.subject) == [], who
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical, who


async def test_a_proxy_in_front_that_changes_host_and_scheme_changes_no_url(client: Client, story: Story) -> None:
    order = await client.new_order([f"proxied.{story.namespace}.test"])
    answer = await client.exchange.signed(
        order.url,
        None,
        key=client.key,
        kid=client.account_url,
        headers={"Host": "balancer.internal", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "balancer.internal"},
    )
    assert answer.status == 200
    assert answer.json() == order.body
    assert "balancer" not in f"{answer.body!r} {answer.headers}"


async def test_uacme_lacme_and_aioacme_need_a_token_in_each_challenge_and_types_that_they_know(
    client: Client, story: Story
) -> None:
    order = await client.new_order([f"token.{story.namespace}.test"])
    challenges = (await client.authorization(order.authorizations[0]))["challenges"]
    assert {each["type"] for each in challenges} == {"http-01"}
    assert all(each["token"] for each in challenges)


@pytest.mark.requirement("C1")
@pytest.mark.parametrize("who", ["golang x/crypto/acme", "gufo-acme"])
async def test_polls_what_finalize_says_in_location(client: Client, story: Story, who: str) -> None:
    order = await ready_order(client, story, "location")
    request = b64url(certificate_request(names_of(order), certificate_key()))
    answer = await client.post("finalize", order.body["finalize"], {"csr": request})
    assert answer.location == order.url, who


async def test_caddy_takes_retry_after_only_in_seconds(client: Client, story: Story) -> None:
    order = await client.new_order([f"seconds.{story.namespace}.test"])
    challenge = http01_of(await client.authorization(order.authorizations[0]))
    story.installation.answerer.behave(challenge["token"], Slow("x" * 20, pause=0.3))
    answer = await client.post("challenge", challenge["url"], {})
    assert answer.headers["Retry-After"].isdecimal()


async def test_dehydrated_never_sends_a_request_again_so_no_good_nonce_is_refused(client: Client) -> None:
    assert client.account_url is not None
    nonces = [await client.exchange.new_nonce("GET") for _ in range(50)]
    answers = [
        await client.exchange.signed(client.account_url, None, key=client.key, kid=client.account_url, nonce=nonce)
        for nonce in reversed(nonces)
    ]
    assert {answer.status for answer in answers} == {200}


@pytest.mark.requirement("M76", "C8")
@pytest.mark.parametrize("who", ["nginx-acme", "uacme", "acme-client for Ruby"])
async def test_opens_its_account_at_every_start(client: Client, external_account: ExternalAccount, who: str) -> None:
    url = (await client.exchange.directory())["newAccount"]
    for payload in ({}, {"externalAccountBinding": external_account.binding(client.key, url)}):
        answer = await new_account(client.exchange, client.key, payload)
        assert (answer.status, answer.location) == (200, client.account_url), who


@pytest.mark.requirement("C8", "C18")
async def test_nginx_acme_may_present_a_binding_again_that_was_good_for_one_account(
    exchange: Exchange, story: Story
) -> None:
    once = story.credential("once", maximumAccounts=1)
    external_account = ExternalAccount.parse(once.kid, once.secret)
    client = Client(exchange, AccountKey.generate())
    opened = await client.register(external_account=external_account)
    again = await Client(exchange, client.key).register(external_account=external_account)
    assert (again.status, again.location) == (200, opened.location)
    with pytest.raises(Refused, match="as many accounts as it may"):
        await Client(exchange, AccountKey.generate()).register(external_account=external_account)


async def test_golang_sends_members_that_nobody_asks_for(client: Client, story: Story) -> None:
    order = await client.new_order([f"members.{story.namespace}.test"], resource="new-order")
    answer = await client.post(
        "deactivation", order.authorizations[0], {"resource": "authz", "status": "deactivated", "delete": True}
    )
    assert (answer.status, answer.json()["status"]) == (200, "deactivated")


@pytest.mark.requirement("M112")
@pytest.mark.parametrize("who", ["gufo-acme", "acmen"])
async def test_sends_a_request_with_its_name_in_the_common_name_only(client: Client, story: Story, who: str) -> None:
    order = await ready_order(client, story, "common-name")
    (name,) = names_of(order)
    request = (
        x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .sign(certificate_key(), hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    leaf = (await client.certificate(await client.finalize(order, request))).leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name], who


async def test_mod_md_gets_an_ec_and_an_rsa_certificate_for_the_same_names_at_once(
    client: Client, story: Story
) -> None:
    orders = await asyncio.gather(ready_order(client, story, "twice"), ready_order(client, story, "twice"))
    keys = certificate_key(), rsa.generate_private_key(65537, 2048)
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in names_of(orders[0])])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=False)
    requests = [builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER) for key in (keys[0], keys[1])]
    valid = await asyncio.gather(*map(client.finalize, orders, requests))
    issued = [(await client.certificate(order)).leaf for order in valid]
    assert [leaf.public_key() for leaf in issued] == [key.public_key() for key in keys]


@pytest.mark.requirement("S43", "C11")
async def test_ansible_parses_every_error_as_a_problem_document(client: Client, exchange: Exchange) -> None:
    directory = await exchange.directory()
    answers = [
        await exchange.request("GET", exchange.directory_url.removesuffix("/directory") + "/nothing"),
        await exchange.request("GET", directory["newOrder"]),
        await exchange.request("POST", directory["newOrder"], body=b"{}", headers={"Content-Type": "text/plain"}),
        await exchange.request("POST", directory["newOrder"], body=b"", headers={"Content-Type": JOSE}),
        await exchange.signed(f"{client.account_url}x", None, key=client.key, kid=client.account_url),
    ]
    assert [answer.status for answer in answers] == [404, 405, 415, 400, 404]
    for answer in answers:
        assert answer.content_type == "application/problem+json"
        assert answer.problem_type == "malformed"
        assert answer.problem["detail"]


@pytest.mark.requirement("SEC42")
@pytest.mark.parametrize("address", ["127.0.0.1", "0x7f.1", "2130706433", "::1"])
async def test_lego_sends_an_ip_address_as_a_dns_name(client: Client, address: str) -> None:
    with pytest.raises(Refused) as refused:
        await client.new_order([address])
    assert refused.value.answer.problem_type in {"malformed", "rejectedIdentifier"}


async def test_node_acme_client_tries_weak_account_keys(exchange: Exchange) -> None:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "n": b64url(numbers.n.to_bytes(128, "big")),
        "e": b64url(numbers.e.to_bytes(3, "big")),
    }
    answer = await signed_otherwise(
        exchange, "RS256", jwk, lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    )
    assert (answer.status, answer.problem_type) == (400, "badPublicKey")


async def test_a_modern_client_has_an_ed25519_account_key(exchange: Exchange) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": b64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
    }
    answer = await signed_otherwise(exchange, "EdDSA", jwk, key.sign)
    assert answer.problem_type == "accountDoesNotExist"  # the signature was good


@pytest.mark.requirement("M21")
async def test_a_client_with_an_algorithm_that_is_none_is_told_which_there_are(exchange: Exchange) -> None:
    url = (await exchange.directory())["newAccount"]
    answer = await exchange.signed(url, {}, key=AccountKey.generate(), protected={"alg": "ES256K"})
    assert (answer.status, answer.problem_type) == (400, "badSignatureAlgorithm")
    assert {"ES256", "RS256", "EdDSA"} <= set(answer.problem["algorithms"])


async def signed_otherwise(
    exchange: Exchange, algorithm: str, jwk: dict[str, str], sign: Callable[[bytes], bytes]
) -> Answer:
    """A lookup of an account whose key is not on P-256."""
    url = (await exchange.directory())["newAccount"]
    header = {"alg": algorithm, "jwk": jwk, "nonce": await exchange.nonce(), "url": url}
    protected, payload = b64url(encode_payload(header)), b64url(encode_payload({"onlyReturnExisting": True}))
    body = flattened(protected, payload, sign(f"{protected}.{payload}".encode()))
    return await exchange.request("POST", url, body=body, headers={"Content-Type": JOSE})
