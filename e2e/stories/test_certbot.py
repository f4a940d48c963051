"""A team uses certbot, standalone over HTTP-01, with the EAB credential that the platform team gave it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from e2e.load.keys import certificate_key, certificate_request
from e2e.stories.clients import Certbot, key_in, names_in, refused, succeeded
from e2e.stories.story import Credential, Story
from e2e.support.dns import Failure
from e2e.support.http01 import Text
from tests.support.installation import PROFILE


def test_one_command_opens_an_account_and_obtains_a_certificate_that_the_chain_of_the_profile_proves(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("first")
    succeeded(certbot.certonly(name, credential=credential))
    assert names_in(certbot.file(name)) == {name}
    leaf, issuer = x509.load_pem_x509_certificates(certbot.file(name).read_bytes())
    assert issuer in x509.load_pem_x509_certificates(story.enrollment.chain.encode())
    leaf.verify_directly_issued_by(issuer)
    (order,) = story.orders(name)
    assert int(order["status"]["serialNumber"], 16) == leaf.serial_number


def test_a_renewal_makes_a_new_certificate_with_the_same_account(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("renewed")
    succeeded(certbot.certonly(name, credential=credential))
    before = certbot.file(name).read_bytes()
    succeeded(certbot.renew("--force-renewal"))
    assert certbot.file(name).read_bytes() != before
    first, second = story.orders(name)
    assert first["spec"]["accountRef"] == second["spec"]["accountRef"]
    assert len(certbot.accounts) == 1


def test_an_account_goes_on_without_the_credential_and_one_certificate_may_have_several_names(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    succeeded(certbot.register(credential))
    names = [story.name(label) for label in ("a", "b", "c")]
    succeeded(certbot.certonly(*names))
    assert names_in(certbot.file(names[0])) == set(names)
    (order,) = story.orders(*names)
    account = json.loads((certbot.accounts[0] / "regr.json").read_text())["uri"].rpartition("/")[2]
    assert order["spec"]["accountRef"]["name"] == account


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("--key-type=rsa", "--rsa-key-size=2048"), "RSA-2048"),
        (("--key-type=ecdsa", "--elliptic-curve=secp384r1"), "ECDSA-P384"),
    ],
    ids=["rsa-2048", "ecdsa-p384"],
)
def test_the_certificate_is_for_a_key_of_the_type_that_was_asked_for(
    certbot: Certbot, story: Story, credential: Credential, options: tuple[str, ...], key: str
) -> None:
    name = story.name("keyed")
    succeeded(certbot.certonly(name, credential=credential, args=options))
    assert key_in(certbot.file(name)) == key


def test_a_certificate_request_of_ones_own_is_signed_for_its_own_key(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("own-request")
    key = certificate_key()
    request = certbot.folder / "request.der"
    request.write_bytes(certificate_request([name], key))
    chain = certbot.folder / "chain.pem"
    succeeded(certbot.certonly(credential=credential, args=(f"--csr={request}", f"--fullchain-path={chain}")))
    assert names_in(chain) == {name}
    assert x509.load_pem_x509_certificate(chain.read_bytes()).public_key() == key.public_key()


def test_a_name_that_the_policy_does_not_allow_is_refused_with_name_rule_and_policy(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    good = story.name("good")
    said = refused(certbot.certonly("www.example.org", good, credential=credential))
    rule = f"is not allowed by policy {story.namespace}/{PROFILE} (spec.dnsNames.allowed)"
    assert f'DNS name "www.example.org" {rule}' in said
    assert f'"{good}"' not in said
    assert story.orders("www.example.org", good) == []


def test_the_secret_of_another_credential_is_refused(certbot: Certbot, story: Story, credential: Credential) -> None:
    other = story.credential("other")
    said = refused(certbot.register(Credential(credential.kid, other.secret)))
    assert "its key identifier is unknown here or its MAC is wrong" in said
    assert certbot.accounts == []


def test_an_unknown_key_identifier_is_refused_with_the_same_words_as_a_wrong_secret(
    certbot: Certbot, credential: Credential
) -> None:
    said = refused(certbot.register(Credential("nobody", credential.secret)))
    assert "its key identifier is unknown here or its MAC is wrong" in said


def test_whoever_has_no_credential_is_told_that_one_is_needed(certbot: Certbot) -> None:
    said = refused(certbot.register(None))
    # certbot reads externalAccountRequired in the directory, sends no request, and names the missing option.
    assert "--eab-kid" in said
    assert certbot.accounts == []


@pytest.mark.requirement("SEC12b")
def test_an_expired_credential_opens_no_account(certbot: Certbot, story: Story) -> None:
    credential = story.credential("expired")
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch = json.dumps({"spec": {"expiresAt": yesterday}})
    story.kubectl("patch", "eabcredential", "expired", "--type=merge", f"--patch={patch}")
    said = refused(certbot.register(credential))
    assert "The external account binding's key has expired." in said
    story.kubectl("wait", "--for=jsonpath={.status.conditions[?(@.type=='Ready')].reason}=Expired", "eab/expired")


@pytest.mark.requirement("SEC12b")
def test_a_suspended_credential_stops_its_accounts_until_it_is_taken_back(certbot: Certbot, story: Story) -> None:
    credential = story.credential("suspended")
    succeeded(certbot.register(credential))
    name = story.name("suspended")
    suspend(story, "suspended", suspended=True)
    said = refused(certbot.certonly(name))
    assert "The account's EAB credential" in said
    assert "is suspended." in said
    newcomer = Certbot(certbot.program, story, certbot.folder.parent / "newcomer")
    assert "The external account binding's key is suspended." in refused(newcomer.register(credential))
    suspend(story, "suspended", suspended=False)
    succeeded(certbot.certonly(name))


def suspend(story: Story, credential: str, *, suspended: bool) -> None:
    """Set spec.suspended and wait until the operator has observed it."""
    patch = json.dumps({"spec": {"suspended": suspended}})
    story.kubectl("patch", "eabcredential", credential, "--type=merge", f"--patch={patch}")
    reason = "Suspended" if suspended else "Issued"
    story.kubectl(
        "wait", f"--for=jsonpath={{.status.conditions[?(@.type=='Ready')].reason}}={reason}", f"eab/{credential}"
    )


@pytest.mark.requirement("SEC46")
def test_a_failed_challenge_is_told_by_certbot_and_by_kubectl_in_the_same_words_without_what_was_fetched(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    with story.stranger(Text("TOP-SECRET-OF-AN-INNER-SERVICE")) as stranger:
        name = story.name("failed", stranger)
        said = refused(certbot.certonly(name, credential=credential))
    reason = "answered with something other than the key authorization of this challenge"
    assert name in said
    assert reason in said
    described = " ".join(story.kubectl("describe", "acmeorders", named(story, name)).split())
    assert reason in described
    events_and_logs = story.installation.programs.server.log.read_text()
    for text in (said, described, events_and_logs):
        assert "TOP-SECRET" not in text


def named(story: Story, name: str) -> str:
    """The name of the only order for a DNS name."""
    (order,) = story.orders(name)
    return str(order["metadata"]["name"])


def test_a_name_that_is_not_in_dns_is_told_as_that(certbot: Certbot, story: Story, credential: Credential) -> None:
    name = story.name("nowhere", Failure("NXDOMAIN"))
    said = refused(certbot.certonly(name, credential=credential))
    assert f"The DNS lookup (A, AAAA) of {name} failed" in said
    assert f"The DNS lookup (A, AAAA) of {name} failed" in story.kubectl(
        "get", "acmeorders", named(story, name), "--output=jsonpath={.status}"
    )


def test_the_contact_of_an_account_is_shown_and_can_be_changed(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    succeeded(certbot.register(credential, "--email=first@example.com", "--no-eff-email"))
    assert "first@example.com" in succeeded(certbot.run("show_account")).output
    succeeded(certbot.run("update_account", "--email=second@example.com", "--no-eff-email"))
    assert "second@example.com" in succeeded(certbot.run("show_account")).output
    account = json.loads((certbot.accounts[0] / "regr.json").read_text())["uri"].rpartition("/")[2]
    assert story.kubectl("get", "acmeaccount", account, "--output=jsonpath={.status.contact}") == (
        '["mailto:second@example.com"]'
    )


@pytest.mark.requirement("M103")
def test_an_account_that_was_given_up_is_refused_from_then_on(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    succeeded(certbot.register(credential))
    (account,) = certbot.accounts
    kept = {each: each.read_bytes() for each in account.iterdir()}
    succeeded(certbot.run("unregister"))
    assert certbot.accounts == []
    # A backup of the account's files: the server knows the key and rejects it forever.
    account.mkdir(parents=True, exist_ok=True)
    for file, content in kept.items():
        file.write_bytes(content)
    said = refused(certbot.certonly(story.name("given-up")))
    assert "The account is deactivated." in said
